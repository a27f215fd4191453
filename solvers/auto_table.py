"""Measured by `python -m logsnr.bench.choose_auto`, which says how."""

TABLE = {
    (-5.03, 4.56): {
        4: ("straight", "clock", 2, True, 0.8, 1.5, 1.0),
    },
}
