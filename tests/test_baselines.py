"""The committed float baselines: they load, the README says what they say, and the quick ones measure it again."""

import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
HERE = ROOT / "experiments/baselines"
for name in ("lightning_fabric", "rapidfuzz", "skimage"):
    pytest.importorskip(name, reason=f"the extra `tasks` is not installed: there is no {name}")
sys.path.insert(0, str(ROOT))

from experiments.baselines import run, table, tasks  # noqa: E402
from rindle.tasks.train import Share  # noqa: E402

FILES = sorted((HERE / "checkpoints").glob("*.safetensors"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_checkpoint_fits_its_model_and_is_small(file):
    task, kind = file.stem.rsplit("-", 1)
    model = run.load(tasks.load(task).model(kind), file)
    about = run.about(file)
    assert file.stat().st_size <= 8e6
    assert sum(value.numel() for value in model.parameters()) == about["parameters"]
    assert all(torch.equal(value, value.half().float()) for value in model.parameters())
    assert task in about["command"] and len(about["curve"]) <= about["settings"]["epochs"]


def test_a_checkpoint_of_another_model_is_refused():
    with pytest.raises(ValueError, match=r"opendpd-gru\.safetensors holds .*, the model has "):
        run.load(tasks.load("ptb").model("gru"), HERE / "checkpoints/opendpd-gru.safetensors")


def test_the_readme_says_what_the_checkpoints_say():
    text = table.README.read_text()
    assert text.partition(table.BEGIN)[2].partition(table.END)[0].splitlines() == table.rows()


needs_data = pytest.mark.skipif(
    not os.environ.get("RINDLE_DATA_MIRROR"),
    reason="RINDLE_DATA_MIRROR is not set: there are no data to train or test on",
)


@pytest.mark.fast(0)
@needs_data
@pytest.mark.parametrize("task, kind", dict(file.stem.rsplit("-", 1) for file in FILES).items())
def test_a_model_on_another_device_finds_its_batch_there(task, kind, monkeypatch):
    """The meta device stands for a GPU: it refuses operands of the CPU, and computes shapes only."""
    if task == "an4":  # CTC is not implemented there

        def ctc_loss(scores, marks, lengths, sizes, **_):
            assert marks.device.type == "meta"
            return scores.sum()

        monkeypatch.setattr("torch.nn.functional.ctc_loss", ctc_loss)
    module = tasks.load(task)
    task, model = module.Task(quick=True), module.model(kind).to("meta")
    loss, count, _ = task.loss(model, task.plan(0)[0], Share(), None)
    loss.backward()
    assert loss.device.type == "meta" and type(count) is int
    assert all(value.grad is not None for value in model.parameters())


@needs_data
@pytest.mark.fast(0)  # unpacks every data set
@torch.no_grad()
@pytest.mark.parametrize("task, kind", dict(file.stem.rsplit("-", 1) for file in FILES).items())
def test_a_checkpoint_of_every_task_is_about_as_good_as_written(task, kind):
    """On the little of the test part that `--quick` takes, whose figure differs from the whole's by chance."""
    module, file = tasks.load(task), HERE / f"checkpoints/{task}-{kind}.safetensors"
    found = module.Task(quick=True).evaluate(run.load(module.model(kind), file).eval(), "test")[module.METRIC]
    assert found == pytest.approx(run.about(file)["test"][module.METRIC], rel=0.2)


@needs_data
@pytest.mark.fast(0)
@pytest.mark.parametrize("task, kind", [("opendpd", "gru"), ("fsdd", "lstm")])
def test_quick_checkpoints_measure_what_is_written(task, kind):
    module, file = tasks.load(task), HERE / f"checkpoints/{task}-{kind}.safetensors"
    found = run.report(run.load(module.model(kind), file), module.Task())
    for part in ("valid", "test"):
        assert found[part][module.METRIC] == pytest.approx(run.about(file)[part][module.METRIC], rel=1e-4)
