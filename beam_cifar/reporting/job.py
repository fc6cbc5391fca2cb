"""How an output of this program was made."""

from __future__ import annotations

from collections.abc import Iterator

from beam_cifar.reporting.facts import Account, Balance, Report
from beam_cifar.reporting.markup import Markup, cut, element, joined, name, number
from beam_cifar.reporting.overview import notices
from beam_cifar.reporting.tables import MAX_LINES, MAX_SUBSETS, NAME, table
from beam_cifar.words import counted


def job(report: Report) -> Markup | None:
    """How an output of this program was made."""
    account = report.account
    if account is None:
        return element("p", report.account_trouble) if report.account_trouble else None
    return joined(
        element("p", f"Made by beam-cifar {cut(account.version, 40)} from {cut(account.source, NAME)}."),
        _balance(account),
        _changed(report, account),
        element("p", f"{counted(account.unlabelled, 'row')} lost the label.") if account.unlabelled else None,
        element("h3", "Options of the job") if account.options else None,
        element("dl", *_options(account), class_="options") if account.options else None,
        *([element("h3", "Notices of the job"), notices(account.notices)] if account.notices else []),
        *([element("h3", "Names that had to change"), _renamed(account)] if account.renamed else []),
    )


def _options(account: Account) -> Iterator[Markup]:
    for option, value in account.options[:MAX_LINES]:
        yield element("dt", cut(option, 200))
        yield element("dd", element("code", cut(value, 2000)))


def _balance(account: Account) -> Markup:
    def cells(what: str, balance: Balance) -> list[str]:
        counts = (balance.read, balance.written, balance.filtered, balance.quarantined)
        return [what, *map(number, counts)]

    items = list(account.balances.items())
    lines = [cells(name(cut(subset, NAME)), balance) for subset, balance in items[:MAX_SUBSETS]]
    head = ["Subset", "Read", "= written", "+ filtered", "+ quarantined"]
    moved, more = not all(balance.holds for _, balance in items), len(items) - MAX_SUBSETS
    return joined(
        table(head, lines, cells("All", account.total), label="Rows of the job"),
        element("p", f"and {counted(more, 'further subset')}") if more > 0 else None,
        element("p", "The job moved rows between subsets, so that only the last line adds up.", class_="soft")
        if moved and account.total.holds else None,
        element("p", element("span", "The counts do not add up.", class_="tag")) if not account.total.holds else None,
    )  # fmt: skip


def _changed(report: Report, account: Account) -> Markup | None:
    """A warning where there are other rows than the job wrote; no such check where only some subsets are looked at."""
    if report.partial or report.stats.rows == account.total.written:
        return None
    wrote, found = counted(account.total.written, "row"), number(report.stats.rows)
    told = element("p", f"The job wrote {wrote}, and there are {found}: the output was changed since.")
    return element("div", told, class_="note bad")


def _renamed(account: Account) -> Markup:
    lines = [
        [name(cut(written, NAME)), name(cut(original, NAME)), cut(kind, NAME)]
        for kind, names in account.renamed.items()
        for written, original in names.items()
    ]
    made = table(
        ["Written as", "Name", "What it is"], lines[:MAX_LINES], texts=(1, 2), label="Names that had to change"
    )
    more = len(lines) - MAX_LINES
    return joined(made, element("p", f"and {more:,} more") if more > 0 else None)
