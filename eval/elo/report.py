"""Elo ratings as text: Markdown that reads well in a terminal too.

    text = format_report(result)

`result` is what elo.json holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from common.text import counted, table
from eval.statistics import STANDARD_ERRORS

FEW_GAMES = 30  # with fewer, a player is marked
UNDEFINED = "undefined (every verdict is the same)"
ENOUGH_RESAMPLES = 200
ENOUGH_QUESTIONS = 20


def format_report(result: Mapping[str, Any]) -> str:
    """Return the ratings, what they mean, every pair, position bias, agreement, and what was ignored, in Markdown."""
    parts = [
        ["# Elo ratings", "", _ratings(result), "", *_meaning(result)],
        ["## Wins / ties / losses of the row against the column", "", _matrix(result)],
        ["## Position bias", "", *_position(result["position"])],
        ["## Agreement between judges", "", *_agreement(result["agreement"])],
        ["## What was read", "", *_files(result)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _ratings(result: Mapping[str, Any]) -> str:
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
    return table(rows, markdown=True)


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
        + (f" Other orders would move it by about ±{STANDARD_ERRORS * max(errors):.1f}." if errors else ""),
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


def _matrix(result: Mapping[str, Any]) -> str:
    names = [row["player"] for row in result["players"]]
    rows = [["", *(f"{place}" for place in range(1, len(names) + 1))]]
    for place, name in enumerate(names, 1):
        counts = (result["matrix"][name].get(other) for other in names)
        cells = (f"{count['wins']}/{count['ties']}/{count['losses']}" if count else "" for count in counts)
        rows.append([f"{place} {name}", *cells])
    return table(rows, markdown=True)


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


def _agreement(result: Mapping[str, Any]) -> list[str]:
    lines = []
    if result["fleiss"] is None:
        lines.append(f"One judge ({result['judges'][0]}): agreement between judges needs two.")
    else:
        rows = [["judges", "items", "same verdict", "Cohen's kappa", "players", "Kendall's tau"]]
        for pair in result["pairs"]:
            same = "–" if pair["same"] is None else f"{pair['same']:.1%}"
            tau = "–" if pair["kendall_tau"] is None else f"{pair['kendall_tau']:.3f}"
            kappa = _kappa(pair["cohen_kappa"], pair["items"])
            rows.append([" – ".join(pair["judges"]), f"{pair['items']:,}", same, kappa, str(pair["players"]), tau])
        fleiss = result["fleiss"]
        lines.append(table(rows, markdown=True))
        lines += [
            "",
            f"Fleiss' kappa of all {fleiss['judges']} judges on the {fleiss['items']:,} items that all of them judged: "
            f"{_kappa(fleiss['fleiss_kappa'], fleiss['items'])}.",
            "An item is a question with two players in one order of showing, or in any where the judges share none. "
            "Kappa: 0 is what chance alone gives, 1 is full agreement. "
            "Tau: agreement on the ranking of the players, −1 to 1.",
        ]
    for judge, repeat in result["repeats"].items():
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
        f"{sum(count['lines'] for count in counts):,} lines of {counted(len(counts), 'file')}: "
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
