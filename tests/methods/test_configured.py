"""Every method's configuration passes what a run asks of it before anything is made."""

import pytest
from test_configs import choices, composed

from vltune.assemble.factory import check_values
from vltune.configuration import check_constructors


@pytest.mark.parametrize("method", choices("method"))
@pytest.mark.parametrize("backbone", ["vilt", "meter_mini"])
def test_it_is_one_that_a_run_can_have(method, backbone):
    config = composed(f"method={method}", f"backbone={backbone}", "dataset=shapes")
    check_values(config)
    check_constructors(config)
