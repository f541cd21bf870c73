"""The cells, one equation a file. A new one is a file here and a line in CELLS."""

from .convlstm import convlstm, convlstm_peephole
from .gru import gru
from .gru_reset_before import gru_reset_before
from .ligru import ligru
from .linear import linear
from .lstm import lstm
from .lstm_variants import (
    lstm_cifg,
    lstm_cifg_projection,
    lstm_peephole,
    lstm_peephole_cifg,
    lstm_peephole_cifg_projection,
    lstm_peephole_projection,
    lstm_projection,
)
from .rnn import rnn_relu, rnn_tanh
from .sru import sru
from .sru_variants import (
    sru_beside,
    sru_beside_rescale,
    sru_highway,
    sru_highway_projection,
    sru_projection,
    sru_projection_rescale,
    sru_rescale,
)

# A cell whose program has several inputs reads more than x: a Recurrent of one layer of it takes a tuple of tensors.
CELLS = {
    cell.name: cell
    for cell in (
        lstm,
        lstm_peephole,
        lstm_cifg,
        lstm_projection,
        lstm_peephole_cifg,
        lstm_peephole_projection,
        lstm_cifg_projection,
        lstm_peephole_cifg_projection,
        gru,
        gru_reset_before,
        ligru,
        rnn_tanh,
        rnn_relu,
        sru,
        sru_highway,
        sru_projection,
        sru_rescale,
        sru_highway_projection,
        sru_projection_rescale,
        sru_beside,
        sru_beside_rescale,
        convlstm,
        convlstm_peephole,
    )
}

__all__ = ["CELLS", "linear", *CELLS]
