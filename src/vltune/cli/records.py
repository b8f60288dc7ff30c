"""Records after the runs: `vltune report`, `findings`, `power`, `compare`, `merge`, `pack`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vltune.catalogue import methods
from vltune.errors import UserError
from vltune.values import finite

_Conf = Annotated[Path, typer.Option(help="Folder of configurations, whose methods the rows are.")]


def report(
    table: Annotated[str, typer.Argument(help="Name of the table; a wrong one lists them.")],
    results_dir: Annotated[Path, typer.Option(help="Folder of records/ and paper/.")] = Path("results"),
    out: Annotated[
        Path | None, typer.Option(help="Write tables/, figures/ and html/ here instead of into results.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="What to write, separated by commas; html is one page of all tables, for a browser.")
    ] = "md,tex,csv,png,svg",
    conf: _Conf = Path("conf"),
) -> None:
    """Print tables of the records, and write each with its figure.

    \b
      vltune report mini
      vltune report vilt --results-dir ~/shared/results --out /tmp/paper --format tex,svg
      vltune report mini --format html
      vltune report low_data
    """
    from rich.console import Console

    from vltune.assemble.data import examples_of
    from vltune.results import PAGE, page_file
    from vltune.results import report as write_report
    from vltune.results.render import text

    formats = [name.strip() for name in format.split(",")]
    known = methods(conf)
    for built in write_report(table, results_dir, out, formats, examples_of, known):
        Console(highlight=False).print(text.terminal(built))
    if not known:
        typer.echo(f"{conf}/method is not there: rows are those with records, presented as these say", err=True)
    if PAGE in formats:
        typer.echo(page_file(table, out or results_dir))


def findings(
    results_dir: Annotated[Path, typer.Option(help="Folder of records/.")] = Path("results"),
    out: Annotated[Path, typer.Option(help="Write here.")] = Path("docs", "findings.md"),
    conf: _Conf = Path("conf"),
) -> None:
    """Write what the tables say: which methods are told apart, pair by pair, and which are not.

    \b
      vltune findings
      vltune findings --results-dir ~/shared/results --out /tmp/findings.md
    """
    from vltune.records.record import check_out, save
    from vltune.results.findings import written

    check_out(out)
    save(out, written(results_dir, methods(conf)).encode())
    typer.echo(out)


def power(
    table: Annotated[str, typer.Argument(help="Name of the table; a wrong one lists them.")],
    points: Annotated[
        float, typer.Option(help="Difference to plan for, in hundredths of a score.", min=0.001, max=100)
    ] = 1.0,
    results_dir: Annotated[Path, typer.Option(help="Folder of records/.")] = Path("results"),
    conf: _Conf = Path("conf"),
) -> None:
    """Say which differences a table's runs can tell, and how many examples and seeds would tell a smaller one.

    "pair" and "marks" are the true differences that are found four times in five, at 5 %: between two methods that were
    chosen beforehand, and by a table's marks, which are corrected for its other rows.  Then follow the numbers of units
    (what a test takes as one: an image with its questions) on which the marks would find --points, with 3, 5, 10 and 20
    seeds (none: seeds alone move scores by more), and how many seeds would: on the units that there are, and at least.
    From the records' own predictions; docs/statistics.md says how.

    \b
      vltune power mini
      vltune power vilt --points 0.5 --results-dir ~/shared/results
    """
    from vltune.results.power import lines, reasons, told

    finite("--points", points)
    for title, found in told(table, points, results_dir, methods(conf)).items():
        typer.echo(f"{title}: what it tells, and what tells {points:g} of 100\n")
        shown = lines(found)
        widths = [max(map(len, cells)) for cells in zip(*shown, strict=True)]
        for name, *numbers in shown:
            aligned = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
            typer.echo("  ".join([name.ljust(widths[0]), *aligned]))
        for line in reasons(found):
            typer.echo(f"not known: {line}")
        typer.echo()


def compare(
    a: Annotated[Path, typer.Argument(help="Folder of results, or one that holds records.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="Another: after a change of the code, of another machine.", metavar="B")],
    out: Annotated[Path | None, typer.Option(help="Write the comparison to this file too.")] = None,
    format: Annotated[
        str | None,
        typer.Option(help="md, csv or json; printed where there is no --out.", show_default="by --out's name"),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="By how many hundredths scores may differ (points of a hundred); implies the next.", min=0),
    ] = None,
    fail_on_difference: Annotated[
        bool,
        typer.Option(
            "--fail-on-difference",
            help="Exit status 1 where scores differ, a run finished in one alone or a file cannot be used.",
        ),
    ] = False,
    brief: Annotated[bool, typer.Option("--brief", help="Only say how far apart they are, in two lines.")] = False,
    conf: _Conf = Path("conf"),
) -> None:
    """Set two folders of records side by side: scores, predictions, costs, and where the runs come from.

    Runs are paired by their configuration (the hash in a record's name) and seed; where the hashes differ, with the nearest
    configuration of the same method, and what differs is said.  "B - A" is in points of what is in percent, else in the
    score's own unit.

    \b
      vltune compare results ~/before/results
      vltune compare results/records/meter_mini ~/other-machine/meter_mini --format md --out difference.md
      vltune compare results ~/nightly/results --tolerance 0.5
      vltune compare outputs/demo results --brief
    """
    from rich.console import Console

    from vltune.records.record import check_out, save
    from vltune.results.compare import match as comparing
    from vltune.results.compare import text as compare_text

    finite("--tolerance", tolerance)
    format = format or (out.suffix[1:] if out else None)
    if format is not None and format not in compare_text.TEXT:
        raise UserError(f"format {format!r} is not known: use one of {', '.join(compare_text.TEXT)}")
    if out is not None:
        check_out(out)
    found = comparing.compare(a, b, methods(conf))
    if out is None and format is not None:
        typer.echo(compare_text.TEXT[format](found), nl=False)
    elif brief:
        typer.echo(compare_text.brief(found))
    else:
        Console(highlight=False).print(compare_text.terminal(found))
    if out is not None:
        save(out, compare_text.TEXT[format](found).encode())
    if (fail_on_difference or tolerance is not None) and (failed := comparing.failures(found, tolerance or 0.0)):
        for line in failed:
            typer.echo(f"differs: {line}", err=True)
        raise typer.Exit(1)


def merge(
    sources: Annotated[list[Path], typer.Argument(help="Folders of results, or that hold records.", metavar="FROM...")],
    into: Annotated[Path, typer.Option(help="Folder of results to copy them into.")] = Path("results"),
    prefer: Annotated[
        str | None,
        typer.Option(
            help="newer or theirs: which of two finished records of a run stays.", show_default="what is there"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
) -> None:
    """Copy records from elsewhere, with predictions and tuned parameters beside them, to their places in a results folder.

    A finished record takes the place of one that did not finish.  Where both finished with other content, what is there
    stays and the other is refused, unless --prefer says otherwise; what gives way goes to INTO/replaced.  Exit status 1
    where a file is broken.

    \b
      vltune merge ~/gpu-server/results
      vltune merge machine1/results machine2/results --into ~/all/results --prefer newer --dry-run
    """
    from rich.console import Console
    from rich.table import Table

    from vltune.records import folders
    from vltune.records import merge as merging

    merged = merging.merge(sources, into, prefer, dry_run)
    table = Table("from", title=f"{'would be ' if dry_run else ''}merged into {into}")
    for outcome in merging.OUTCOMES:
        table.add_column(outcome, justify="right")
    for source, files in merged.items():
        table.add_row(str(source), *(str(sum(file.outcome == name for file in files)) for name in merging.OUTCOMES))
    Console(highlight=False, markup=False).print(table)
    for file in (file for files in merged.values() for file in files):
        if dry_run or file.why or file.outcome in ("replaced", "refused", "broken"):
            typer.echo(f"{file.outcome}: {file.what}{f' ({file.why})' if file.why else ''}")
    for left in (left for source in merged for left in folders.apart(source)):
        command = shlex.join(["vltune", "merge", str(left), "--into", str(into / left.name)])
        typer.echo(f"left: {left} (holds records of its own: {command})")
    if any(file.outcome == "broken" for files in merged.values() for file in files):
        raise typer.Exit(1)


def pack(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of results, or that hold records.", metavar="FOLDER", show_default="results"),
    ] = None,
) -> None:
    """Put the predictions of all finished runs of a folder into one file, predictions.parquet, beside their records.

    It takes about a sixth of the room, for all runs answer the same examples.  A run's own file goes once what was packed
    has been read back and is the same.  Every command finds predictions packed or not, a run's own file first; given again,
    this one adds the runs that finished since.  Folders of results in a folder of results (learning_rates/) are packed with
    it.  Predictions that name pictures beside their record stay as they are, and so does what is broken: it is named, and
    the exit status is 1.

    \b
      vltune pack
      vltune pack ~/shared/results results/records/vilt_mini/vqa-shapes
    """
    from rich.console import Console
    from rich.table import Table

    from vltune.records import pack as packing
    from vltune.records.folders import apart

    broken: list[UserError] = []
    given = folders or [Path("results")]
    roots = dict.fromkeys(root for folder in given for root in (folder, *apart(folder)))
    found = [each for root in roots for each in packing.pack(root, broken.append)]
    table = Table(title="predictions")
    table.add_column("folder", overflow="fold")
    for column in ("runs", "kB before", "kB after"):
        table.add_column(column, justify="right")
    for each in (each for each in found if each.runs):
        table.add_row(str(each.folder), str(each.runs), *(f"{size / 1000:,.0f}" for size in (each.before, each.after)))
    totals = (sum(each.before for each in found), sum(each.after for each in found))
    table.add_section()
    table.add_row("all", str(sum(each.runs for each in found)), *(f"{size / 1000:,.0f}" for size in totals))
    Console(highlight=False, markup=False).print(table)
    for each in (each for each in found if each.pictures):
        typer.echo(f"left: {each.folder} ({each.pictures} runs whose predictions name pictures beside their records)")
    for error in broken:
        typer.echo(f"left: {error}")
    if broken:
        raise typer.Exit(1)
