"""A real MLflow server that goes away while a tracker is in use."""

import logging
import time

import mlflow
import pytest
from mlflow.entities import ViewType

from pipeline.tracking import PARENT, SWEEP, Tracker

logging.getLogger("mlflow").setLevel(logging.WARNING)


@pytest.mark.slow
def test_an_outage_in_mid_sweep(mlflow_server, tmp_path, caplog):
    tracker = Tracker(mlflow_server.uri, "outage", str(tmp_path), {SWEEP: "s"})
    caplog.set_level(logging.WARNING)
    tracker.start("study", "study")
    tracker.start("early", "early", parent="study", params={"p": 1})
    tracker.metrics("early", {"m": 0.0}, 0)
    assert tracker.flush(20)

    mlflow_server.stop()
    begun = time.monotonic()
    for step in range(1, 200):
        tracker.metrics("early", {"m": step}, step)
    tracker.end("early", "FINISHED")
    tracker.start("late", "late", parent="study", params={"p": 2})
    tracker.text("late", "notes/a.txt", "text")
    tracker.end("late", "FAILED")
    tracker.end("study", "FINISHED")
    assert time.monotonic() - begun < 2  # nobody waited
    assert tracker.status("late") == "FAILED"
    assert tracker.run_id("late") is None
    assert not tracker.flush(1.5)
    assert tracker.pending == 204
    said, down = time.time() * 1000, list(caplog.messages)

    time.sleep(0.1)
    mlflow_server.start()
    assert tracker.flush(30)
    tracker.close()
    early, late, study = (tracker.client.get_run(tracker.run_id(key)) for key in ("early", "late", "study"))
    assert [run.info.status for run in (early, late, study)] == ["FINISHED", "FAILED", "FINISHED"]
    assert max(run.info.end_time for run in (early, late, study)) <= said  # true times, not those of delivery
    assert early.info.end_time <= late.info.start_time <= late.info.end_time
    history = tracker.client.get_metric_history(tracker.run_id("early"), "m")
    assert [(m.step, m.value) for m in history] == [(step, float(step)) for step in range(200)]
    assert max(m.timestamp for m in history) <= said
    assert late.data.params == {"p": "2"}
    assert late.data.tags[PARENT] == study.info.run_id
    assert mlflow.artifacts.load_text(f"{late.info.artifact_uri}/notes/a.txt") == "text"
    assert len(tracker.client.search_runs([tracker.experiment_id], run_view_type=ViewType.ALL)) == 3
    assert list((tmp_path / "tracking").iterdir()) == []

    assert len(down) == 1
    assert "does not take records" in down[0]
    assert len(caplog.messages) == 2, caplog.messages  # not one per try either, from whatever library
    assert caplog.messages[1].endswith("takes records again; 204 of them are late")


def test_no_password_in_what_is_said(tmp_path, mlflow_server, caplog):
    uri = mlflow_server.uri.replace("http://", "http://user:secret@")
    tracker = Tracker(uri, "outage", str(tmp_path), {SWEEP: "s"})
    mlflow_server.stop()
    with caplog.at_level(logging.WARNING):
        tracker.start("k", "run")
        assert not tracker.close(0.5)
    assert "MLflow http://***@127.0.0.1" in caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in (tmp_path / "tracking" / "s.jsonl").read_text()
