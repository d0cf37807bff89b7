"""`fasttrain model`: what a network is made of, and what training it costs."""

from __future__ import annotations

from rich.table import Table

from fasttrain.config import Config
from fasttrain.data.outline import Outline
from fasttrain.models.summary import Summary, summarize
from fasttrain.training.parts import count_training


def describe(config: Config, data: Outline) -> Table:
    """The layers of a run's network as a table; the cost of the whole run stands below it.

    Raises:
        UserError: pooling leaves no pixels, or the batches do not fit the data set.
    """
    summary = summarize(config.model, data.classes, data.size)
    table = Table(title=f"{config.name}: {config.model.family}", title_justify="left")
    table.add_column("layer", overflow="fold")
    table.add_column("kind")
    for heading in ("output", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for layer in summary.layers:
        shape = " x ".join(map(str, layer.shape))
        table.add_row(
            layer.name, layer.kind, shape, f"{layer.parameters:,}", f"{layer.multiply_adds:,}"
        )
    table.add_section()
    table.add_row("in all", "", "", f"{summary.parameters:,}", f"{summary.multiply_adds:,}")
    table.caption, table.caption_justify = _cost(config, data, summary), "left"
    return table


def _cost(config: Config, data: Outline, summary: Summary) -> str:
    """The operations of all training steps; a last short batch of an epoch is not trained on."""
    batch = config.data.batch_size
    pictures = count_training(config, data.pictures) // batch * batch
    epochs = config.train.epochs
    flops = summary.training_flops(pictures * epochs)
    return (
        f"training: 3 x 2 x {summary.multiply_adds:,} multiply-adds x {pictures:,} pictures x "
        f"{epochs} epochs = {flops / 1e15:.3g} PFLOP"
    )
