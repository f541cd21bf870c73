"""Mixed precision as data, and beacons: what is retrained, what is borrowed, and what survives a kill."""

import json

import numpy as np
import pytest

from rindle import RindleError
from rindle.scheme.rules import parse_rule
from rindle.search.beacons import Beacons
from rindle.search.grid import grid_space, scheme_of
from rindle.search.precision import distance, overrides_of, shares_of, space_of, uniform
from rindle.search.workers import Outcome

GATES = ("r", "z", "n")
PATHS = {
    "rnn.l0": [f"{kind}.{gate}.{source}" for kind in ("weight", "code") for gate in GATES for source in "xh"]
    + ["r.sigmoid"],
    "fc": ["weight.y.x", "code.y.x"],
}


def test_a_space_has_a_variable_per_layer_source_or_gate():
    assert set(space_of(PATHS, grain="layer")) == {"rnn.l0/weight.*", "rnn.l0/code.*", "fc/weight.*", "fc/code.*"}
    assert len(space_of(PATHS, grain="source")) == 2 * (2 + 1)
    assert len(space_of(PATHS, grain="gate")) == 2 * (6 + 1)
    assert set(space_of(PATHS, tied=True)) == {"rnn.l0/both.*.x", "rnn.l0/both.*.h", "fc/both.*.x"}
    wide = space_of(PATHS, (2, 8), (4,), thetas=(0, 0.25), held=("rnn.l0/h",))
    assert wide["rnn.l0/weight.*.h"] == (2, 8) and wide["rnn.l0/code.*.h"] == (4,) and wide["θ rnn.l0/h"] == (0, 0.25)


@pytest.mark.parametrize("grain", ["layer", "source", "gate"])
@pytest.mark.parametrize("tied", [False, True])
def test_candidates_become_rules_of_every_path(grain, tied):
    from fnmatch import fnmatchcase

    space = space_of(PATHS, grain=grain, tied=tied, thetas=(0, 0.125), held=("rnn.l0/x",))
    generator = np.random.default_rng(0)
    candidate = {name: choices[generator.integers(len(choices))] for name, choices in space.items()}
    rules = overrides_of(candidate)
    for layer, paths in PATHS.items():
        for path in (one for one in paths if one.count(".") == 2):
            (fits,) = [pattern for pattern in rules if fnmatchcase(f"{layer}/{path}", pattern)]
            kind = path.split(".")[0]
            name = next(one for one in (fits, fits.replace(f"/{kind}.", "/both.")) if one in candidate)
            found = parse_rule(rules[fits])
            assert found.bits == candidate[name] and found.kind == ("fixed" if found.bits == 16 else "int")
    assert shares_of(candidate) == {"rnn.l0/x": candidate["θ rnn.l0/x"]}
    assert json.loads(json.dumps(candidate)) == candidate


def test_uniform_candidates_go_from_wide_to_narrow():
    space = space_of(PATHS, (2, 4, 8), (4, 8), thetas=(0, 0.5), held=("rnn.l0/x",))
    found = uniform(space)
    assert [one["fc/weight.*.x"] for one in found] == [8, 4, 2]
    assert [one["fc/code.*.x"] for one in found] == [8, 4, 4]
    assert all(one["θ rnn.l0/x"] == 0 for one in found)


def test_faults_of_spaces():
    for arguments, message in [
        ({"weights": (1, 4)}, "the search: a format has 2..16 bits, not 1"),
        ({"grain": "row"}, "unknown grain 'row'; there are layer, source, gate"),
        ({"thetas": (0, 1.5)}, "shares of the codes' range"),
    ]:
        with pytest.raises(RindleError, match=message):
            space_of(PATHS, **arguments)
    with pytest.raises(RindleError, match="no products"):
        space_of({})
    with pytest.raises(RindleError, match="unknown family 'float'; there are int, fixed"):
        grid_space((4,), (4,), families=("float",))
    with pytest.raises(RindleError, match=r"the sweep: a format has 2..16 bits, not 17"):
        grid_space((4,), (17,))


def test_a_sweeps_candidates_as_schemes():
    space = grid_space((2, 4), (8,), (64, 128), ("int", "fixed"))
    assert {name: len(choices) for name, choices in space.items()} == {
        "family": 2,
        "weights": 2,
        "activations": 1,
        "table": 2,
    }
    scheme, overrides = scheme_of({"family": "fixed", "weights": 4, "activations": 8, "table": 64})
    assert (parse_rule(scheme["weight.*"]).kind, parse_rule(scheme["weight.*"]).bits) == ("fixed", 4)
    assert (parse_rule(scheme["code.*"]).kind, parse_rule(scheme["code.*"]).bits) == ("fixed", 8)
    assert overrides == {"table.*": "linear 64"}
    assert grid_space((), (), schemes=("int8", "w4a8")) == {"scheme": ("int8", "w4a8")}
    assert scheme_of({"scheme": "w4a8"}) == ("w4a8", {})


def test_distance_is_over_the_codes_of_weights():
    one = {"a/weight.*.x": 2, "a/weight.*.h": 16, "a/code.*.x": 2, "θ a/h": 0}
    other = {"a/weight.*.x": 8, "a/weight.*.h": 4, "a/code.*.x": 16, "θ a/h": 0.5}
    assert distance(one, other) == 2 + 2 and distance(one, one) == 0


# ---------------------------------------------------------------------------------------------------------- beacons

NAMES = [f"l{k}/weight.*" for k in range(4)]


def candidate(*bits):
    return dict(zip(NAMES, bits))


class Trainer:
    """Parameters that remember which candidate they were trained for; the error is the distance to it."""

    def __init__(self, plain=25.0):
        self.plain, self.trained, self.evaluated = plain, [], 0

    def retrain(self, one):
        self.trained.append(one)
        return {"bits": np.array(list(one.values()), np.float32)}

    def evaluate(self, one, parameters):
        self.evaluated += 1
        if parameters is None:
            return Outcome({"error": self.plain}, more={"error": self.plain})
        wide = dict(zip(NAMES, parameters["bits"].tolist()))
        return Outcome({"error": 10.0 + distance(one, wide)}, more={"error": 0.0})


def beacons(trainer, folder, useful=lambda outcome: 19 < outcome.values["error"] < 30):
    return Beacons(trainer.evaluate, trainer.retrain, useful, folder)


def test_a_beacon_is_lit_where_none_is_near_and_borrowed_where_one_is(tmp_path):
    trainer = Trainer()
    search = beacons(trainer, tmp_path)
    first = candidate(2, 2, 2, 2)
    assert search(first).values["error"] == 10 and trainer.trained == [first]
    near = candidate(4, 4, 4, 8)  # 1 + 1 + 1 + 2 = 5: not more than 5
    found = search(near)
    assert trainer.trained == [first] and found.values["error"] == 15
    assert found.more["distance"] == 5 and found.more["after training"] == 25 and found.more["with beacon"] == 15
    far = candidate(4, 4, 8, 8)  # 6
    assert search(far).values["error"] == 10 and trainer.trained == [first, far]
    # between both, the nearer one lends
    assert search(candidate(4, 4, 8, 4)).values["error"] == 11 and len(trainer.trained) == 2


def test_the_better_of_both_counts(tmp_path):
    trainer = Trainer(plain=20.0)
    search = beacons(trainer, tmp_path)
    search(candidate(2, 2, 2, 2))
    trainer.evaluate = lambda one, parameters: Outcome({"error": 20.0 if parameters is None else 21.0})
    assert beacons(trainer, tmp_path)(candidate(4, 2, 2, 2)).values["error"] == 20.0


def test_nothing_is_retrained_outside_the_useful_region(tmp_path):
    trainer = Trainer(plain=31.0)
    assert beacons(trainer, tmp_path)(candidate(2, 2, 2, 2)).values["error"] == 31 and trainer.evaluated == 1
    assert not trainer.trained and not list(tmp_path.iterdir())


def test_beacons_outlive_their_process(tmp_path):
    beacons(Trainer(), tmp_path)(candidate(2, 2, 2, 2))
    trainer = Trainer()
    again = beacons(trainer, tmp_path)
    assert again(candidate(2, 2, 2, 2)).values["error"] == 10 and not trainer.trained
    assert [one.candidate for one in again.known()] == [candidate(2, 2, 2, 2)]


def test_an_interrupted_training_leaves_no_beacon(tmp_path):
    trainer = Trainer()

    def interrupted(one):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Beacons(trainer.evaluate, interrupted, lambda outcome: True, tmp_path)(candidate(2, 2, 2, 2))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_beacon_is_named(tmp_path):
    (tmp_path / "beacon-0.safetensors").write_bytes(b"torn")
    with pytest.raises(RindleError, match=r"beacon-0.safetensors is not a beacon.*remove it"):
        beacons(Trainer(), tmp_path)(candidate(2, 2, 2, 2))
