"""A small output plan, and its fields; run as a program it writes an output that can be killed."""

import sys
import time

import numpy as np

from pipeline.downscaling.output import writing
from pipeline.downscaling.output_plan import OutputPlan
from pipeline.factors import FactorPair

PAIR = FactorPair(4, 2)
H, W = 1032, 24  # two chunks of rows
CRS = "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378.14 +b=6356.75 +x_0=0 +y_0=0"


def times(coarse=(0, 1, 3)):
    """Ends of the fine intervals of coarse frames of 10 minutes; frame 2 is in a gap."""
    first = np.datetime64("2010-08-26T00:05:00") + np.array(coarse) * np.timedelta64(600, "s")
    return np.stack([first, first + np.timedelta64(300, "s")], axis=1).ravel()


def plan(**changes):
    given = {
        "pair": PAIR,
        "times": times(),
        "y": 100.5 + np.arange(H),
        "x": 0.5 + np.arange(W),
        "variable": "precipitation",
        "units": "mm/h",
        "members": 2,
        "quantiles": (0.1, 0.9),
        "exceed": (0.1, 5.0),
        "crs": CRS,
        "facts": {"model": "rain-4x2", "seed": 3, "sampler": {"name": "dpm", "steps": 5}},
        "notes": {"command": "downscale rain", "finescale": "0.1.0"},
        "attributes": {
            "y": {"units": "km", "standard_name": "projection_y_coordinate"},
            "": {"title": "Rain"},
        },
    }
    return OutputPlan(**given | changes)


def field(frame, member, height=H):
    """Rain with a missing corner; (tau, height, W)."""
    values = np.random.default_rng([frame, member]).gamma(0.3, 2, (2, height, W)).astype("f4")
    values[:, :8, :8] = np.nan
    return values


def blocks(output):
    step, height = output.chunk_rows, output.plan.grid[0]
    return [slice(start, min(start + step, height)) for start in range(0, height, step)]


def write_part(output, frame, part):
    """Write a member, or the summary, which is the last part."""
    plan = output.plan
    values = field(frame, part, plan.grid[0])
    for rows in blocks(output):
        if part < plan.members:
            output.write(frame, part, rows, values[:, rows])
        else:
            several = [np.stack([values[:, rows] + k for k in range(n)]) if n else None for n in
                       (len(plan.quantiles), len(plan.exceed))]  # fmt: skip
            output.write_summary(frame, rows, values[:, rows], *several)


def complete(url, plan, pause=0.0, **how):
    """Do what is missing; give how many parts that was."""
    done = 0
    with writing(url, plan, **how) as (output, record):
        for frame, part in np.argwhere(~record.finished):
            write_part(output, frame, part)
            record.mark(frame, part)
            done += 1
            time.sleep(pause)
        record.finish()
    return done


if __name__ == "__main__":
    complete(sys.argv[1], plan(), float(sys.argv[2]))
