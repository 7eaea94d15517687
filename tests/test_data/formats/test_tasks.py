"""Super-NaturalInstructions."""

import pytest

from data.formats.registry import FORMATS
from tests.support.format_records import TASK, TASK_PROMPT, shown

# Super-NaturalInstructions


def convert_task(**columns):
    return shown(FORMATS["super-natural-instructions"].convert(TASK | columns))


def test_task_files_of_2021_have_a_text_as_definition_and_tasks_without_references_one_output():
    assert convert_task(Definition="Add the numbers") == convert_task()
    assert convert_task(Instances=[{"input": "5 6", "output": "11"}]) == [{"input": TASK_PROMPT, "output": "11"}]


@pytest.mark.parametrize("examples", [[], None])
def test_task_without_positive_examples(examples):
    assert convert_task(**{"Positive Examples": examples})[0]["input"] == (
        "Definition: Add the numbers.\n\nNow complete the following example -\nInput: 5 6.\nOutput: "
    )
