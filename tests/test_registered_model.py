from pathlib import Path

import pytest

from pipeline import UserError
from pipeline.mlflow_view.source_run import source_run
from pipeline.model_file import load_card, load_model, save_model
from pipeline.registered_model import fetch_registered
from pipeline.tracking import ROLE, SWEEP, Tracker


def test_a_registered_model_comes_back_as_its_two_files(trained_like, tiny, tmp_path, monkeypatch, one_line):
    monkeypatch.chdir(tmp_path)  # nothing may depend on, or appear in, the working directory
    url, name, output = str(tmp_path / "one"), "finescale-rain-4x2", tmp_path / "server"
    save_model(url, trained_like(), sampling=tiny.sampling, data={"fingerprint": "f"}, scores={"crps": 0.5})
    output.mkdir()
    tracker = Tracker(f"sqlite:///{output}/mlflow.db", "registry", str(output), {SWEEP: "s"})
    run = tracker.start("study", "study")
    tracker.register(run, url, name, crps=0.5, scored_on="f")
    assert tracker.flush(60)
    for asked, folder in (
        (f"models:/{name}@champion", f"{name}-champion"),
        (f"models:/{name}/1", f"{name}-1"),
    ):
        found = fetch_registered(asked, tracker.uri, str(tmp_path / "runs"))
        assert Path(found) == tmp_path / "runs" / "registered" / folder
        assert load_card(found) == load_card(url)
        assert load_model(found).spec == load_model(url).spec
    for asked in (
        "models:/nothing@champion",
        f"models:/{name}@nothing",
        f"models:/{name}/7",
        f"models:/{name}",
    ):
        with pytest.raises(UserError) as raised:
            fetch_registered(asked, tracker.uri, str(tmp_path / "runs"))
        one_line(raised, asked, "--tracking-uri")
    with pytest.raises(UserError) as raised:
        fetch_registered(f"models:/{name}@champion", f"sqlite:///{tmp_path}/no.db", str(tmp_path / "runs"))
    one_line(raised, "no.db", "--tracking-uri")
    assert {path.name for path in tmp_path.iterdir()} == {"one", "server", "runs"}
    made_by = source_run(tracker.client, tracker.experiment_id, found)
    assert (made_by.run_id, made_by.name) == (tracker.run_id(run), "study")
    assert source_run(tracker.client, tracker.experiment_id, url) is None
    for role in ("evaluated", "trial", "study"):
        tracker.start(f"by the {role}", f"of the {role}", tags={ROLE: role, "finescale.model": url})
    assert tracker.flush(20)
    assert source_run(tracker.client, tracker.experiment_id, url).name == "of the study"
