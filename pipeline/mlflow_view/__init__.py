"""What a person finds in MLflow besides scores: arranged tables, descriptions, the data, the machine.

`pipeline.tracking` and `pipeline.registry` put it there.
"""
