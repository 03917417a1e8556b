"""Noise schedule, the v-prediction process and samplers: plain torch."""
