"""What every task declares holds together."""

from importlib import import_module
from pathlib import Path

import pytest

from vltune.metrics.metric import PERCENT
from vltune.records import record as records
from vltune.tasks.task import Task

FILES = sorted((Path(__file__).parents[2] / "src/vltune/tasks").glob("*.py"))
TASKS = {
    each
    for file in FILES
    for each in vars(import_module(f"vltune.tasks.{file.stem}")).values()
    if isinstance(each, type) and issubclass(each, Task) and each is not Task
}


@pytest.mark.parametrize("task", sorted(TASKS, key=lambda task: task.__name__))
def test_one_metric_is_primary_and_each_reads_declared_columns(task):
    names = [metric.name for metric in task.metrics]
    assert sum(metric.primary for metric in task.metrics) == 1
    assert len(set(names)) == len(names)
    columns = {column.name for column in task.columns}
    for place, metric in enumerate(task.metrics):
        assert {*metric.columns} <= columns, metric
        assert {*metric.mean_of} <= {*names[:place]}, "a mean stands after its parts"
        assert not (metric.correlation and metric.unit == PERCENT), "which is never below 0"
        assert metric.declaration().keys() <= records.SCHEMA["$defs"]["score"]["properties"].keys()
