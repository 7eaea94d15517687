"""Elo ratings as text and as a picture.

    text = format_report(result)       # Markdown that reads well in a terminal too
    draw(result, io.BytesIO())

`result` is what elo.json holds.
"""

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

FEW_GAMES = 30  # with fewer, a player is marked
UNDEFINED = "undefined (every verdict is the same)"
ENOUGH_RESAMPLES = 200
ENOUGH_QUESTIONS = 20
LABEL_WIDTH = 30  # characters of a line of a player's name in the picture
LABEL_LINES = 3
MOST_CELLS_WITH_NUMBERS = 40  # players; with more, the numbers in the cells could not be read


# Text


def format_report(result: Mapping[str, Any]) -> str:
    """Return the ratings, what they mean, every pair, position bias, agreement, and what was ignored, in Markdown."""
    parts = [
        ["# Elo ratings", "", *_ratings(result), "", *_meaning(result)],
        ["## Wins / ties / losses of the row against the column", "", *_matrix(result)],
        ["## Position bias", "", *_position(result["position"])],
        ["## Agreement between judges", "", *_agreement(result["agreement"])],
        ["## What was read", "", *_files(result)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table with aligned columns, the first row its header; text left, the rest to the right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in rows]
    ruler = "|" + "-" * (widths[0] + 2) + "|" + "".join("-" * (width + 1) + ":|" for width in widths[1:])
    return [lines[0], ruler, *lines[1:]]


def _ratings(result: Mapping[str, Any]) -> list[str]:
    is_split = len({row["group"] for row in result["players"]}) > 1
    header = ["player", "Elo", "95 % interval", "one order", "games", "wins", "ties", "losses", "score"]
    rows = [header + ["group"] * is_split]
    for row in result["players"]:
        cells = [
            row["player"] + " *" * row["few_games"],
            f"{row['rating']:.0f}",
            _range(row["interval"]),
            _range(row["single_order"]),
            *(str(row[name]) for name in ("games", "wins", "ties", "losses")),
            f"{score(row):.1%}",
        ]
        rows.append(cells + [str(row["group"])] * is_split)
    return table(rows)


def score(counts: Mapping[str, int]) -> float:
    """Return the share of points won, a tie being half of one."""
    return (counts["wins"] + counts["ties"] / 2) / (counts["wins"] + counts["ties"] + counts["losses"])


def _range(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.0f} to {interval[1]:.0f}"


def _meaning(result: Mapping[str, Any]) -> list[str]:
    """Return what the columns are, and what is to be kept in mind, a line for each."""
    settings, rows = result["settings"], result["players"]
    errors = [row["standard_error"] for row in rows if row["standard_error"] is not None]
    lines = [
        f"- Elo: the mean over {settings['orders']:,} random orders of {result['games']:,} games; K {settings['k']:g}, "
        f"start {settings['start']:g}, seed {settings['seed']}."
        + (f" Other orders would move it by about ±{1.96 * max(errors):.1f}." if errors else ""),
        _interval_line(result),
        *_without_interval(result),
        "- one order: where 95 % of the single orders end. This is the noise of Elo itself, which the mean takes away; "
        "it says nothing of how sure the data is.",
        "- Ratings hold within this set of players and games: with a player more or fewer, all of them move.",
    ]
    few = [row["player"] for row in rows if row["few_games"]]
    if few:
        lines.append(f"- * fewer than {FEW_GAMES} games ({', '.join(few)}): not enough to place a player.")
    groups = sorted({row["group"] for row in rows})
    if len(groups) > 1:
        members = [", ".join(row["player"] for row in rows if row["group"] == group) for group in groups]
        lines.append(
            f"- WARNING: there are {len(groups)} groups of players with no game between them, whose ratings cannot be "
            f"compared: {'; '.join(f'({group}) {names}' for group, names in zip(groups, members, strict=True))}."
        )
    return lines


def _interval_line(result: Mapping[str, Any]) -> str:
    if not result["resamples"]:
        least = result["least_orders_for_interval"]
        return f"- 95 % interval: none; it takes two questions or more and --orders {least} or more."
    without = sum(count["without_question"] for count in result["files"])
    alone = f" {without:,} lines have no question_id; each counts as a question of its own." if without else ""
    rough = " It is rough with so few resamples: raise --orders." if result["resamples"] < ENOUGH_RESAMPLES else ""
    rough += " So few questions make it too narrow." if result["questions"] < ENOUGH_QUESTIONS else ""
    return (
        "- 95 % interval: how sure the data is: where the rating would be with other questions like these "
        f"(bootstrap of {result['questions']:,} questions, {result['resamples']:,} resamples of "
        f"{result['orders_per_resample']} orders, the noise of the orders taken out).{rough}{alone}"
    )


def _without_interval(result: Mapping[str, Any]) -> list[str]:
    """Return why there are players with no interval where others may have one."""
    rows = [row for row in result["players"] if row["interval"] is None] if result["resamples"] else []
    alike = ", ".join(row["player"] for row in rows if row["ended_alike"])
    hidden = ", ".join(row["player"] for row in rows if not row["ended_alike"])
    lines = []
    if alike:
        lines.append(
            f"- –: every question of {alike} ended alike, so these games tell nothing of the spread. "
            "It does not make the rating certain."
        )
    if hidden:
        lines.append(
            f"- –: what other questions would change for {hidden} is so little that the noise of the orders hides it. "
            "It does not make the rating certain: raise --orders."
        )
    return lines


def _matrix(result: Mapping[str, Any]) -> list[str]:
    names = [row["player"] for row in result["players"]]
    rows = [["", *(f"{place}" for place in range(1, len(names) + 1))]]
    for place, name in enumerate(names, 1):
        cells = (result["matrix"][name].get(other) for other in names)
        shown = ("" if cell is None else f"{cell['wins']}/{cell['ties']}/{cell['losses']}" for cell in cells)
        rows.append([f"{place} {name}", *shown])
    return table(rows)


def _position(position: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for judge, count in position.items():
        total = count["questions"]
        if not total:
            lines.append(f"- {judge}: no question was judged in both orders, so it cannot be told; judge both.")
            continue
        line = (
            f"- {judge}: {total:,} judged in both orders: {_part(count['same'], total)} the same verdict, "
            f"{_part(count['flipped'], total)} flipped to the other player, {_part(count['to_tie'], total)} a tie in "
            "one order only"
        )
        if count["first_share"] is not None:
            line += f"; the answer shown first won {count['first_share']:.1%} of the decided ones (50 % is no bias)"
        lines.append(line + ".")
    return lines


def _part(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})"


def _agreement(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if found["fleiss"] is None:
        lines.append(f"One judge ({found['judges'][0]}): agreement between judges needs two.")
    else:
        rows = [["judges", "items", "same verdict", "Cohen's kappa", "players", "Kendall's tau"]]
        for pair in found["pairs"]:
            same = "–" if pair["same"] is None else f"{pair['same']:.1%}"
            tau = "–" if pair["kendall_tau"] is None else f"{pair['kendall_tau']:.3f}"
            kappa = _kappa(pair["cohen_kappa"], pair["items"])
            rows.append([" – ".join(pair["judges"]), f"{pair['items']:,}", same, kappa, str(pair["players"]), tau])
        fleiss = found["fleiss"]
        lines += table(rows)
        lines += [
            "",
            f"Fleiss' kappa of all {fleiss['judges']} judges on the {fleiss['items']:,} items that all of them judged: "
            f"{_kappa(fleiss['fleiss_kappa'], fleiss['items'])}.",
            "An item is a question with two players in one order of showing, or in any where the judges share none. "
            "Kappa: 0 is what chance alone gives, 1 is full agreement. "
            "Tau: agreement on the ranking of the players, −1 to 1.",
        ]
    for judge, repeat in found["repeats"].items():
        lines.append(
            f"{judge} judged {repeat['items']:,} items {repeat['verdicts']} times each: Fleiss' kappa among these "
            f"verdicts {_kappa(repeat['fleiss_kappa'], repeat['items'])}; a majority counts above."
        )
    return lines


def _kappa(value: float | None, items: int) -> str:
    return f"{value:.3f}" if value is not None else UNDEFINED if items else "– (no item in common)"


def _files(result: Mapping[str, Any]) -> list[str]:
    counts = result["files"]
    ignored = sum(sum(count["ignored"].values()) for count in counts)
    lines = [
        f"{sum(count['lines'] for count in counts):,} lines of {len(counts)} file{'s' * (len(counts) > 1)}: "
        f"{sum(count['used'] for count in counts):,} verdicts, {ignored:,} ignored (score is not 1, 2 or 3)."
    ]
    if result["left_out"]:
        lines.append(f"{result['left_out']:,} verdicts were left out by --judge or --category.")
    for count in counts:
        if count["ignored"]:
            reasons = ", ".join(f"{reason}: {times}" for reason, times in count["ignored"].items())
            lines.append(
                f"- {count['path']}: {sum(count['ignored'].values()):,} of {count['lines']:,} ignored ({reasons})"
            )
    return lines


# Picture


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
    lacking = [one for one in caught if str(one.message).startswith("Glyph ") and "missing from" in str(one.message)]
    for other in caught:
        if other not in lacking:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return bool(lacking)


def _draw_ratings(axes: Any, result: Mapping[str, Any]) -> None:
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


def _draw_matrix(figure: Any, axes: Any, result: Mapping[str, Any]) -> None:
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
