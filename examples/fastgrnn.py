"""FastGRNN as a cell of one's own: the task and the steps are those of mingru.py. `python examples/fastgrnn.py`"""

import torch
from mingru import Memory, ship, train

import rindle


@rindle.cell(states=("h",))
def fastgrnn(n, x, h):
    """FastGRNN: gate and candidate share one product a. Kusupati et al. 2018 (arXiv 1901.02358), section 3.2:
    h = z ⊙ h + (ζ (1 − z) + ν) ⊙ c; ζ and ν are scalars there, a number for each unit here.
    """
    a = n.affine("a", x, h, bias=False)
    z = n.sigmoid(n.path("z", n.add(a, n.vector("b_z"))))
    c = n.tanh(n.path("c", n.add(a, n.vector("b_c"))))
    kept = n.path("kept", n.lerp(z, h, n.path("new", n.mul(n.vector("zeta"), c))))
    h = n.add(kept, n.path("rest", n.mul(n.vector("nu"), c)))
    return h


def begin(net: torch.nn.Module) -> torch.nn.Module:
    """ζ = 1 and ν = 0.02, near where the paper's begin: σ(3) and σ(−4). Parameters have the cell's names, and a layer's number."""
    for name, parameter in net.rnn.named_parameters():
        if name.startswith(("zeta", "nu")):
            torch.nn.init.constant_(parameter, 1.0 if name.startswith("zeta") else 0.02)
    return net


if __name__ == "__main__":
    torch.manual_seed(0)
    net = begin(Memory(fastgrnn))
    train(net, steps=300)
    print("mean squared error: float {:.4f}, int8 {:.4f}".format(*ship(net, "fastgrnn.rindle")))
