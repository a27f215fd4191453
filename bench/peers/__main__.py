"""This library beside diffusers, k-diffusion and azula, of which only what is installed is run:

python -m logsnr.bench.peers accuracy    errors at equal numbers of evaluations
python -m logsnr.bench.peers time        time outside the model
python -m logsnr.bench.peers pictures    samples of `auto` and of the best peer, of rows that are known
"""

import typer

from ..command import interruptible, run_app
from .pictures import pictures
from .report import accuracy
from .time import time

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
app.command()(interruptible("stopped; the rows so far are kept")(accuracy))
app.command()(interruptible()(time))
app.command()(interruptible()(pictures))

if __name__ == "__main__":
    run_app(app)
