"""What a training told, as plain values for JSON; for the scripts here. Not a test."""

from pipeline.final.observer import StageBegun
from pipeline.training.loop import StepReport
from pipeline.training.messages import GroupStarted, Waiting, Warned, WorkersLost


def plain(message):
    match message:
        case StepReport():
            return [
                "step",
                message.stage,
                message.step,
                message.loss,
                message.gradient_norm,
                message.validation_loss,
            ]
        case StageBegun():
            return ["begun", message.stage, message.step]
        case GroupStarted():
            return ["started", message.workers]
        case WorkersLost():
            return ["lost", list(message.ranks), message.reason]
        case Waiting():
            return ["waiting", message.workers]
        case Warned():
            return ["warned", message.text]
    raise TypeError(message)
