"""What every job's command line has in common: configuration flags, and how a mistake is reported."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

from pipeline.config import Config
from pipeline.config_layers import load_config, parse_assignment
from pipeline.environment import resolve_output, without_secrets
from pipeline.errors import GaveUpError, UserError
from pipeline.storage.cloud import explained


class _Parser(argparse.ArgumentParser):
    """argparse without the usage block before an error: one line, status 2; values may begin with a minus."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Join a flag and a value like -5,40,5,45, which argparse takes for a flag."""
        joined: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            before = joined[-1] if joined else ""
            if re.match(r"-[\d.]", word) and before.startswith("--") and "=" not in before:
                joined[-1] = f"{before}={word}"
            else:
                joined.append(word)
        return super().parse_known_args(joined, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def job_parser(prog: str, description: str, examples: str) -> argparse.ArgumentParser:
    """Make a job's parser, with its examples under the options."""
    return _Parser(
        prog=prog,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config_flags(parser: argparse.ArgumentParser, flags: Mapping[str, tuple[str, str]]) -> None:
    """Add the configuration flags that every job has, and short ones for the keys in `flags`.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    flags : mapping of str to (str, str)
        Flag to (dotted configuration key, help), as in `{"--trials": ("tuning.trials", "...")}`.
    """
    group = parser.add_argument_group("configuration (later wins: preset, --config, FINESCALE_A__B=, flags)")
    group.add_argument(
        "--config", metavar="FILE", help="YAML file with any of the settings that --dry-run prints"
    )
    shared = {"--preset": ("preset", "tiny (tests), small (a laptop; default) or paper (GPUs)"), **flags}
    for flag, (key, text) in shared.items():
        group.add_argument(flag, dest=f"key:{key}", metavar=flag.strip("-").upper(), help=f"{text} [{key}]")
    group.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting; repeatable"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and the plan, do nothing"
    )


def config_from(arguments: argparse.Namespace, defaults: Mapping[str, Any] | None = None) -> Config:
    """Resolve the configuration from parsed arguments, the environment and `--config`.

    Parameters
    ----------
    arguments : argparse.Namespace
        From a parser with `add_config_flags`.
    defaults : mapping, optional
        Tree of settings that the job puts above the preset and below all of these.
    """
    flags = [
        (name.removeprefix("key:"), value)
        for name, value in vars(arguments).items()
        if name.startswith("key:")
    ]
    overrides = [(key, value) for key, value in flags if value is not None]
    overrides += [parse_assignment(text) for text in arguments.set]
    return load_config(overrides, defaults=defaults, file=arguments.config)


def refuse_flags(
    arguments: argparse.Namespace,
    flags: Mapping[str, tuple[str, str]],
    mode: str,
    allowed: Collection[str],
) -> None:
    """Refuse flags that a mode of a job would not heed.

    Raises
    ------
    UserError
        Naming the first of them.
    """
    for flag, (key, _) in flags.items():
        if flag not in allowed and getattr(arguments, f"key:{key}") is not None:
            raise UserError(f"{flag}: not used with {mode}, which takes {', '.join(sorted(allowed))}")


def number_of_workers(text: str | None) -> int | None:
    """Read `--workers`; None: no cluster is asked for.

    Raises
    ------
    UserError
        If it is no positive number.
    """
    if text is not None and not (text.isdigit() and int(text) > 0):
        raise UserError(f"--workers {text}: give a number from 1 on, or leave it out")
    return None if text is None else int(text)


def registered_folder(name: str, arguments: argparse.Namespace) -> str:
    """Copy `models:/NAME@ALIAS` out of the MLflow that the configuration names, and give its folder.

    Raises
    ------
    UserError
        If MLflow has no such model.
    """
    from pipeline.registered_model import fetch_configured

    config = config_from(arguments)
    return fetch_configured(name, config, resolve_output(config.output))


def run_job(main: Callable[[list[str]], None]) -> NoReturn:
    """Run a job and end the process: 0 done, 1 gave up, 2 a user's mistake (one line), 130 interrupted."""
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except GaveUpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # whoever read what we print has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # a full disk, a store that does not answer
        line = explained(error)
        if line is None:
            raise
        print(f"error: {without_secrets(line)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command carries on from here", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
