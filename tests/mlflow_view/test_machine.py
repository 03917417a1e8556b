import threading
import time

from pipeline.mlflow_view.machine import PREFIX, SystemWatch


def test_samples_until_it_is_stopped():
    told, enough = [], threading.Event()

    def tell(values, step):
        told.append((values, step))
        if len(told) == 3:
            enough.set()

    before = int(time.time())
    watch = SystemWatch(tell, waits=(0.01, 0.02))
    assert enough.wait(30)
    watch.stop()
    count = len(told)
    time.sleep(0.1)
    assert len(told) == count
    for values, step in told:
        assert before <= step <= time.time()
        assert all(name.startswith(PREFIX) for name in values)
        assert 0 < values["system/system_memory_usage_percentage"] < 100
        assert 0 <= values["system/cpu_utilization_percentage"] <= 100
    assert [step for _, step in told] == sorted(step for _, step in told)


def test_waits_grow_to_the_longest():
    """Stopped while it waits for the first sample, it has told nothing, and is not waited for."""
    told = []
    watch = SystemWatch(lambda *sample: told.append(sample), waits=(3600.0, 3600.0))
    watch.stop()
    assert told == []


def test_a_sample_on_its_way_is_waited_for():
    inside, begun, told = threading.Event(), [], []

    def tell(values, step):
        begun.append(step)
        inside.set()
        time.sleep(0.2)
        told.append(step)

    watch = SystemWatch(tell, waits=(0.01, 0.01))
    assert inside.wait(30)
    watch.stop()
    assert told == begun
