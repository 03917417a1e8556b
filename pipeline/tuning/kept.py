"""What an output folder remembers of its sweeps: its own name, and each sweep's configuration."""

from __future__ import annotations

import uuid

import yaml

from pipeline import environment
from pipeline.config import Config
from pipeline.errors import UserError, one_line
from pipeline.factors import FactorPair
from pipeline.storage.files import exists, join, read_text, write_text


def keep(config: Config, sweep: str) -> tuple[FactorPair, ...]:
    """Keep the configuration with all pairs of the sweep so far; gives those that are not tuned now."""
    file, tuning = _config_file(config.output, sweep), config.tuning
    earlier = _read_config(file).tuning.pairs if exists(file) else ()
    others = tuple(pair for pair in earlier if pair not in tuning.pairs)
    together = tuning.model_copy(update={"pairs": (*others, *tuning.pairs)})
    write_text(file, without_addresses(config.model_copy(update={"tuning": together})).to_yaml())
    return others


def without_addresses(config: Config) -> Config:
    """Leave out what may hold a password: files and trials need neither server nor database."""
    return config.model_copy(
        update={
            "tracking": config.tracking.model_copy(update={"uri": None}),
            "tuning": config.tuning.model_copy(update={"storage": None}),
        }
    )


def output_id(output: str) -> str:
    """Give the name that an output folder has for good, wherever it is moved or mounted."""
    file = join(output, "sweeps", "output-id")
    if not exists(file):
        write_text(file, uuid.uuid4().hex)
    return read_text(file)


def _config_file(output: str, sweep: str) -> str:
    return join(output, "sweeps", f"{sweep}.yaml")


def _read_config(file: str) -> Config:
    try:
        return Config.model_validate(yaml.safe_load(read_text(file)))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(
            f"{file}: not the configuration of a sweep of this version ({one_line(error)}); move it, and "
            "tune all its pairs in one command"
        ) from error


def config_of(sweep: str, given: Config) -> Config:
    """Read the configuration of a sweep that has been run; where things are is as given now.

    Raises
    ------
    UserError
        If there is no such sweep under the output.
    """
    file = _config_file(environment.resolve_output(given.output), sweep)
    if not exists(file):
        raise UserError(f"sweep {sweep!r}: not found ({file}); give its name as printed, and its --output")
    kept = _read_config(file)
    tracking = kept.tracking.model_copy(update={"uri": given.tracking.uri})
    tuning = kept.tuning.model_copy(
        update={
            "storage": given.tuning.storage,
            "predict": given.tuning.predict or kept.tuning.predict,
        }
    )
    return kept.model_copy(
        update={"output": given.output, "ray": given.ray, "tracking": tracking, "tuning": tuning}
    )
