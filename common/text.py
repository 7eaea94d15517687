"""Text for people: tables, shares, counted words, and long texts on one line.

    print(table([["", "base", "tuned"], ["eval loss", "1.73", "0.27"]]))
    percent(0.0004), counted(1, "row"), first_of(["a", "b"], 1), shortened("a long text", 20)

Nothing here knows what it is that is printed.
"""

from collections.abc import Collection, Iterable, Sequence


def table(rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,), markdown: bool = False) -> str:
    """Return rows of cells as a table of aligned columns.

    Args:
        rows: the first one is the header.
        left: which columns stand to the left; the others, as numbers do, stand to the right.
        markdown: write the table in Markdown's form.
    """
    from tabulate import tabulate

    align = ["left" if column in left else "right" for column in range(len(rows[0]))]
    form = {
        "colalign": align if len(rows) > 1 else None,
        "disable_numparse": True,
        "preserve_whitespace": True,
    }
    if not markdown:  # The header is a row like the others, as the library pads the columns of one that is not.
        return tabulate(rows, tablefmt="plain", **form)
    header, *others = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(others, header, tablefmt="pipe", **form)


def percent(share: float) -> str:
    """Return a share as text that never rounds something to nothing."""
    return f"{share:.1%}" if share >= 0.0005 or share == 0 else "under 0.1%"


def counted(number: int, word: str) -> str:
    """Return a number and its word: 1 row, 2 rows."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def first_of(texts: Iterable[str], most: int = 5, total: int | None = None) -> str:
    """Return the first texts on one line, and how many more there are.

    Args:
        total: how many there are in all, where `texts` are not all of them.
    """
    texts = list(texts)
    total = len(texts) if total is None else total
    return ", ".join(texts[:most]) + (f" and {total - most:,} more" if total > most else "")


def shortened(text: str, width: int = 90) -> str:
    """Return one line of at most `width` characters; a long text keeps its beginning and its end."""
    text = " ".join(text.split())
    half = (width - 3) // 2
    return text if len(text) <= width else f"{text[:half]} … {text[-half:]}"
