"""Whether two states of the code make the same of the same models, model by model.

    python tests/compare.py write OLD.npz          # in one checkout, with its own environment
    python tests/compare.py write NEW.npz          # in the other
    python tests/compare.py show OLD.npz NEW.npz

Of every committed .rindle file: its id, its bytes when written again, the outputs, saturations and densities of every kernel, dense
and held, and a saved state. Of committed checkpoints, quantized anew on the same seeded frames: id, bytes and outputs. Uses public
names alone, so that it runs on any commit; the file must be copied beside an older one.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(os.environ.get("RINDLE_ROOT", Path(__file__).resolve().parent.parent))
SCHEMES = ("int8", "w4a8", "fixed16", "rezk-m1")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def frames_of(model, rng) -> np.ndarray:
    """float32 [2, 9, I], or ids [2, 9], some of which saturate."""
    if model.vocabulary:
        return rng.integers(0, model.vocabulary, (2, 9))
    return (3 * rng.standard_normal((2, 9, model.input_size))).astype(np.float32)


def of_file(path: Path, found: dict) -> None:
    import rindle

    data, rng = path.read_bytes(), np.random.default_rng(0)
    model = rindle.load(path)
    name = path.relative_to(ROOT)
    found[f"{name}/id"], found[f"{name}/bytes"] = model.id, digest(data)
    x = frames_of(model, rng)
    held = model.with_thresholds(dict.fromkeys(model.thresholds, 3))
    found[f"{name}/held/id"], found[f"{name}/held/bytes"] = held.id, digest(held.data)
    for kind, one in (("dense", model), ("held", held)):
        seen = one.measure(x)
        found[f"{name}/{kind}/output"] = seen.output
        found[f"{name}/{kind}/saturations"] = str(sorted(seen.saturations.items()))
        found[f"{name}/{kind}/density"] = np.array([one.density for one in seen.inputs])
        found[f"{name}/{kind}/reference"] = one.run(x, engine="reference")
    try:
        stream = held.stream()
    except rindle.RindleError as error:
        found[f"{name}/stream"] = str(error)
        return
    for frame in x[0]:
        stream.step(int(frame) if model.vocabulary else frame)
    found[f"{name}/state"] = digest(stream.save())


def layers(path: Path):
    """The recurrent module of a checkpoint and the Linear behind it, by the shapes of their parameters."""
    import torch
    from safetensors.torch import load_file

    state = {name: value.float() for name, value in load_file(path).items()}
    prefix = next((name.removesuffix("weight_ih_l0") for name in state if name.endswith("weight_ih_l0")), None)
    if prefix is None:
        return None
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    rows, width = own["weight_ih_l0"].shape
    hidden = own["weight_hh_l0"].shape[1]
    kind = {4: torch.nn.LSTM, 3: torch.nn.GRU}[rows // hidden]
    depth = 1 + max(int(name.split("_l")[1][0]) for name in own)
    module = kind(width, hidden, depth, batch_first=True, bidirectional="weight_ih_l0_reverse" in own)
    module.load_state_dict(own)
    return module.eval()


def of_checkpoint(path: Path, found: dict) -> None:
    import torch

    import rindle

    class Only(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.rnn = module

        def forward(self, x):
            return self.rnn(x)[0]

    module = layers(path)
    if module is None:
        return
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, 30, module.input_size)).astype(np.float32)
    for scheme in SCHEMES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = rindle.quantize(Only(module), scheme, x)
        name = f"{path.relative_to(ROOT)}/{scheme}"
        found[f"{name}/id"], found[f"{name}/size"] = model.id, str(len(model.data))
        found[f"{name}/output"] = model.run(x[:2])


def write(target: str) -> None:
    import torch

    torch.set_num_threads(1)
    found: dict = {}
    for path in sorted([*(ROOT / "tests/golden").glob("v[123]-*.rindle"), *(ROOT / "docs").glob("*.rindle")]):
        of_file(path, found)
    for path in sorted((ROOT / "experiments").rglob("*.safetensors")):
        if path.stem in SPEAKERS or path.stem.startswith(("mboshi", "fsdd", "opendpd", "an4")):
            of_checkpoint(path, found)
    np.savez_compressed(target, **{name: np.asarray(value) for name, value in found.items()})


def show(old: str, new: str) -> int:
    a, b = np.load(old), np.load(new)
    if set(a.files) != set(b.files):
        print("only in one:", sorted(set(a.files) ^ set(b.files)))
    same = [name for name in a.files if name in b.files and np.array_equal(a[name], b[name])]
    print(f"{len(same)} of {len(a.files)} entries are equal")
    for name in sorted(set(a.files) & set(b.files) - set(same)):
        if name.endswith("output"):
            noise = np.mean((a[name].astype(np.float64) - b[name]) ** 2)
            print(f"{name}: {10 * np.log10(np.mean(a[name].astype(np.float64) ** 2) / noise):.1f} dB apart")
        else:
            print(f"{name}: {str(a[name])[:60]} -> {str(b[name])[:60]}")
    return 0 if len(same) == len(a.files) == len(b.files) else 1


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2])
    else:
        sys.exit(show(sys.argv[2], sys.argv[3]))
