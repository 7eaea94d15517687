"""Elo ratings as a picture: the ratings with both intervals, and the score of every player against every other.

    lacks_characters = draw(result, io.BytesIO())

`result` is what elo.json holds.
"""

import re
import textwrap
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from eval.elo.report import score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_WIDTH = 30  # characters of a line of a player's name
LABEL_LINES = 3
MOST_CELLS_WITH_NUMBERS = 40  # players; with more, the numbers in the cells could not be read


def draw(result: Mapping[str, Any], file: BinaryIO) -> bool:
    """Draw the ratings with both intervals, and the score of every player against every other, as PNG into `file`.

    Returns:
        whether the font lacks characters of the names, which are boxes in the picture then.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(result["players"])
    height = max(3.6, 1.7 + 0.46 * count)
    figure = Figure(figsize=(8.4 + height, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[6.2, height])
    _draw_ratings(left, result)
    _draw_matrix(figure, right, result)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(file, format="png")
    missing = [warning for warning in caught if re.match(r"Glyph .* missing from", str(warning.message))]
    for warning in caught:
        if warning not in missing:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return bool(missing)


def _draw_ratings(axes: "Axes", result: Mapping[str, Any]) -> None:
    rows = result["players"]
    places = range(len(rows))
    with_interval = next((place for place in places if rows[place]["interval"] is not None), None)
    for place, row in zip(places, rows, strict=True):
        colour = f"C{(row['group'] - 1) % 10}"
        first = place == 0
        axes.plot(row["single_order"], [place] * 2, color="0.82", lw=7, solid_capstyle="butt", zorder=1,
                  label="one order" * first)  # fmt: skip
        if row["interval"] is not None:
            axes.plot(row["interval"], [place] * 2, color=colour, lw=2.5, zorder=2,
                      label="95 % interval" * (place == with_interval))  # fmt: skip
        axes.plot(row["rating"], place, "o", color=colour, ms=7, zorder=3)
        axes.annotate(f"{row['rating']:.0f}", (row["rating"], place), (0, 7), textcoords="offset points",
                      ha="center", fontsize=8)  # fmt: skip
    axes.axvline(result["settings"]["start"], color="0.6", lw=0.8, ls=":", zorder=0)
    labels = [_label(place, row) for place, row in enumerate(rows, 1)]
    axes.set_yticks(places, labels, fontsize=9, parse_math=False)  # a name may hold dollars
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.set_xlabel("Elo")
    title = f"{result['games']:,} games, {result['settings']['orders']:,} orders"
    if rows[-1]["group"] > 1:
        title += "; colours never met and cannot be compared"
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=8)  # where the ratings, which fall to the left, leave room


def _label(place: int, row: Mapping[str, Any]) -> str:
    name = f"{place}  {row['player']}{' *' * row['few_games']}"
    return "\n".join(textwrap.wrap(name, LABEL_WIDTH, max_lines=LABEL_LINES, placeholder="…"))


def _draw_matrix(figure: "Figure", axes: "Axes", result: Mapping[str, Any]) -> None:
    import numpy

    names = [row["player"] for row in result["players"]]
    shares = numpy.full((len(names), len(names)), numpy.nan)
    for at, name in enumerate(names):
        for other, counts in result["matrix"][name].items():
            shares[at, names.index(other)] = score(counts)
    image = axes.imshow(100 * shares, cmap="RdBu", vmin=0, vmax=100)
    for (row, column), share in numpy.ndenumerate(shares):
        if not numpy.isnan(share) and len(names) <= MOST_CELLS_WITH_NUMBERS:
            colour = "white" if abs(share - 0.5) > 0.32 else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(names))
    axes.set_xticks(ticks, [place + 1 for place in ticks], fontsize=8)
    axes.set_yticks(ticks, [place + 1 for place in ticks], fontsize=8)
    axes.tick_params(length=0)
    axes.set_facecolor("0.93")
    axes.set_xlabel("against")
    axes.set_title("score of the row, % (tie = half)", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02).ax.tick_params(labelsize=8)
