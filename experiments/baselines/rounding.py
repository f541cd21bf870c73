"""Ways of rounding the weights of a committed checkpoint after training, beside each other: docs/rounding.md.

    python experiments/baselines/rounding.py imdb --model lstm [--bits 4 3 2] [--limit 500] [--steps 200] [--seed 0]

All weights have that many bits and a step per row, activations 8. Calibrates on validation rows and measures, in the C++
runtime, on other validation rows: `--limit` of them, spread evenly (of ptb: words, those after the calibration's). One
calibration serves all: the weights' rules are all that differs. Prints a line of JSON for each.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.baselines import run, tasks
from experiments.baselines.quantized import CALIBRATION, TASKS, spread
from rindle import Model
from rindle.nn.calibrate.plan import Plan, plan_weights
from rindle.nn.conversion.convert import convert
from rindle.nn.conversion.rounding import Rounding, refine
from rindle.nn.quantize import calibrated
from rindle.scheme.paths import keys_of
from rindle.scheme.rules import resolve

WORDS = ("", "corrected", "gptq", "gptq actorder", "gptq corrected", "learned", "learned corrected")
PTB_WORDS = 4_000  # that its calibration takes


def scheme(bits: int, words: str) -> dict[str, str]:
    return {"*": "fixed16 max(1.25)", "weight.*": f"int{bits} mmse {words}", "code.*": "int8 mmse"}


def with_weights(plan: Plan, rules: dict) -> Plan:
    """The plan with the weights of other rules, all else as it was."""
    layers = {}
    for node in plan.graph.programs:
        layer = plan.layers[node.name]
        own = {pair: rules[node.name, "weight.{}.{}".format(*pair)] for pair in node.layer.program.blocks}
        weights = plan_weights(node.name, layer.program, node.layer.blocks, own)
        layers[node.name] = replace(layer, weights=weights, codes={}, biases={})
    return replace(plan, layers=layers, rules=rules)


def keep_others(name: str, task, limit: int) -> None:
    """The validation part without what calibrates."""
    if name == "ptb":
        task.data = task.data._replace(valid=task.data.valid[PTB_WORDS : PTB_WORDS + limit])
        return
    rows = task.parts["valid"] if name == "mboshi" else task.data.valid[0]
    used = set(spread(np.arange(len(rows)), CALIBRATION).tolist())
    others = spread(np.array([row for row in range(len(rows)) if row not in used]), limit)
    if name == "mboshi":
        task.parts["valid"] = [rows[i] for i in others]
    else:
        reviews, positive = task.data.valid
        task.data = task.data._replace(valid=([reviews[i] for i in others], positive[others]))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--model", default="lstm", help="kind of recurrent layer (default: lstm)")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3, 2])
    parser.add_argument("--words", nargs="+", default=WORDS, help="of the weights' rule; '' is the nearest code")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--steps", type=int, default=200, help="of learned rounding")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    module, adapter = tasks.load(args.task), TASKS[args.task]
    exact = run.load(module.model(args.model), run.HERE / "checkpoints" / f"{args.task}-{args.model}.safetensors")
    task = module.Task()
    data, model = adapter.calibration(task), adapter.Alone(exact)
    keep_others(args.task, task, args.limit)
    print(json.dumps({"weights": "float", **task.evaluate(exact, "valid")}), flush=True)
    base = calibrated(model, scheme(8, ""), data)
    keys = keys_of(base.plan.graph)
    rounding = Rounding(args.steps, args.seed, lambda text: print(text, file=sys.stderr, flush=True))
    batch_first = args.task == "imdb"
    for bits in args.bits:
        for words in args.words:
            plan = with_weights(base.plan, resolve(scheme(bits, words), None, keys))
            start = time.process_time()
            story = refine(plan, data, batch_first, rounding)
            seconds = time.process_time() - start
            quantized = Model(convert(plan, {}))

            def runtime(*arguments, quantized=quantized):
                return adapter(quantized, *arguments)

            runtime.parameters = exact.parameters  # the tasks ask it for its device
            found = {"bits": bits, "words": words or "nearest", **task.evaluate(runtime, "valid")}
            print(json.dumps(found | {"cpu_seconds": round(seconds, 1), "rounding": story}), flush=True)


if __name__ == "__main__":
    main()
