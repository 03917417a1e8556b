"""What the training of a stage changes: its weights, their average, Adam's moments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import TrainingSettings
from pipeline.models.family import Stage, SuperResolutionModel
from pipeline.ranks import Ranks
from pipeline.training.sharding import bytes_of, local, whole


class StageState:
    """The state of a stage in training, sharded as its model is.

    Parameters
    ----------
    model : SuperResolutionModel
        Laid out over the ranks.
    stage : Stage
    settings : TrainingSettings
    """

    def __init__(self, model: SuperResolutionModel, stage: Stage, settings: TrainingSettings) -> None:
        self.model, self.stage, self._settings = model, stage, settings
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.named.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.average = {name: p.detach().clone() for name, p in self.named.items()}
        for parameter in self.named.values():  # AdamW would make them at its first step, too late to load
            self.optimizer.state[parameter] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    def agree_on_buffers(self, ranks: Ranks) -> None:
        """Take the first rank's: devices may differ in the last bit."""
        agreed = ranks.agree({name: buffer.cpu() for name, buffer in self._buffers().items()})
        for name, buffer in self._buffers().items():
            buffer.copy_(agreed[name])

    def tensors(self) -> dict[str, Tensor]:
        """Give everything that a checkpoint keeps; loading into these tensors restores the state.

        The step count, the learning rate, all randomness and the place in the data follow from the step.
        """
        kept = {f"buffers/{name}": buffer for name, buffer in self._buffers().items()}
        for name, parameter in self.named.items():
            moments = self.optimizer.state[parameter]
            kept[f"weights/{name}"] = parameter.detach()
            kept[f"average/{name}"] = self.average[name]
            kept[f"exp_avg/{name}"] = moments["exp_avg"]
            kept[f"exp_avg_sq/{name}"] = moments["exp_avg_sq"]
        return kept

    def restored(self, step: int) -> None:
        """Take note that the tensors are now those after `step` steps."""
        for parameter in self.named.values():
            self.optimizer.state[parameter]["step"].fill_(step)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def apply_gradients(self, factor: Tensor) -> Tensor:
        """Scale the gradients by `factor`, clip them, take a step; gives their norm before clipping."""
        gradients = [local(p.grad) for p in self.named.values() if p.grad is not None]
        torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))
        norm = nn.utils.clip_grad_norm_(self.named.values(), self._settings.clip)
        self.optimizer.step()
        return whole(norm)

    def update_average(self, step: int) -> None:
        """Move the averages; early on with a shorter memory, so that the random start is forgotten."""
        decay = min(self._settings.ema, (1 + step) / (10 + step))
        averages = [local(average) for average in self.average.values()]
        targets = [local(self.named[name].detach()) for name in self.average]
        with torch.no_grad():
            torch._foreach_lerp_(averages, targets, 1 - decay)

    def averaged(self) -> dict[str, Tensor]:
        """Gather the averaged weights and the buffers of the stage, whole and on the CPU, on every rank."""
        return {
            name: whole(tensor).detach().cpu().clone()
            for name, tensor in {**self.average, **self._buffers()}.items()
        }

    def bytes(self) -> dict[str, int]:
        """Give what this rank holds: the model's parameters, and the stage's gradients, moments, average."""
        parameters = list(self.model.parameters())
        moments = [moment for state in self.optimizer.state.values() for moment in state.values()]
        return {
            "parameters": bytes_of(parameters),
            "gradients": bytes_of(p.grad for p in parameters if p.grad is not None),
            "optimizer": bytes_of(moments),
            "average": bytes_of(self.average.values()),
        }

    def _buffers(self) -> dict[str, Tensor]:
        return {name: buffer for name, buffer in self.model.named_buffers() if self.stage.owns(name)}
