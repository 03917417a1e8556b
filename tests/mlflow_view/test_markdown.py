from pipeline.mlflow_view.markdown import INTRODUCTION, linked, table


def test_links():
    runs = {"s/4x2": "f00"}
    text = "[a](run:s/4x2), [b](run:gone), [c](view:k#charts), [d](model:n), [e](https://f), run:s/4x2"
    assert linked(text, "3", runs.get) == (
        "[a](#/experiments/3/runs/f00?workflowType=machine_learning), b, "
        "[c](#/experiments/3/runs?workflowType=machine_learning&viewStateShareKey=k&compareRunsMode=CHART), "
        "[d](#/models/n), [e](https://f), run:s/4x2"
    )


def test_the_introduction_has_no_link_left_open():
    text = linked(INTRODUCTION, "3", {}.get)
    assert "](view:" not in text
    assert text.count("viewStateShareKey=finescale-values") == 2
    assert text.count("viewStateShareKey=finescale-evaluated-test") == 1


def test_a_table():
    lines = [line.replace("&nbsp;", "") for line in table(["a", "b"], [["1", "x|y"]]).splitlines()]
    assert lines == ["| a | b |", "| --- | --- |", "| 1 | x/y |"]
