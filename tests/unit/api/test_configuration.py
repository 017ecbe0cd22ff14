# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

from pm.api.configuration import configuration_view
from pm.config.load import Loaded
from pm.config.model import Api, ApiTcp, Config
from tests.unit.api.plane import REST, SYNC


def test_configuration_is_shown_as_it_is_written() -> None:
    """Keys are those of the file, path managers stand by their names, networks are text, defaults shown."""
    api = Api(tcp=ApiTcp(listen="127.0.0.1:8642", token_file="/etc/mptcp-pm/token"))
    view = configuration_view(Loaded(Config(policies=(SYNC, REST), api=api), "ab" * 32))
    shown = json.loads(json.dumps(view["configuration"]))
    sync, rest = shown["policies"]
    assert sync["path_manager"] == {"fullmesh": {"subflows_per_pair": 1, "max_subflows": 8}}
    assert rest["path_manager"] == {"none": None}
    assert sync["accept"]["from"] == ["10.0.0.0/8"]
    assert shown["api"]["tcp"]["token_file"] == "/etc/mptcp-pm/token"
    assert shown["datapath"] == "auto"
