# SPDX-License-Identifier: Apache-2.0
"""Why packets between two addresses do not get through: routing, rp_filter, and what is beyond. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from pm.findings import Finding
from pm.kernel import PathFacts
from pm.model import Pair, family_of
from pm.policies.model import BindInterface
from pm.sessions.evidence import Evidence
from pm.sessions.missing import MissingPair, PairState, Picture

SOON_S = 1.0  # a SYN is sent again after a second
MAIN_TABLE = 254
OWN_TABLE = 1000  # and the index of the interface: a table for a command that we propose


def no_route(missing: MissingPair, picture: Picture, facts: PathFacts | None, evidence: Evidence) -> Finding:
    """The kernel's own lookup says that packets from the address do not leave as they should."""
    pair, reason = missing.pair, missing.reason
    asked = route_get(pair, picture.session.mark)
    if facts is None:
        text = f"No packet from {pair.local} leaves for {pair.remote}."
        return Finding("no_route", text, (reason,), (asked,))
    shown = [f"{asked}: {facts.error or f'dev {facts.leaves_by}'}", reason]
    shown += [f"table {r.table} has a route over {facts.interface}{_via(r.gateway)}" for r in facts.routes]
    if "tunnel" in reason:
        return Finding(
            "route_into_tunnel",
            f"Packets from {pair.local} leave by the tunnel {facts.leaves_by}, which is not bypassed: a VPN "
            "would leak. `addresses.bind_interface: true` bypasses it all the same.",
            tuple(shown),
            (asked, "ip rule show"),
        )
    what = "a rule for this source is missing."
    if not facts.routes:
        what = (
            f"there is no route over {facts.interface} to there. Write the router on that link for GATEWAY."
        )
    elif evidence.bind_interface is BindInterface.FALSE:
        what += " `addresses.bind_interface: auto` needs none."
    elif _in_main(facts):
        what += " `addresses.source_routing: true` makes one for every address."
    return Finding(
        "no_route",
        f"Packets from {pair.local} do not leave by its interface {facts.interface}: {what}",
        tuple(shown),
        (*_routing_commands(pair, facts, picture), asked),
    )


def _routing_commands(pair: Pair, facts: PathFacts, picture: Picture) -> list[str]:
    """With them packets from the address leave by its interface."""
    ip = "ip -6" if family_of(pair.local) == 6 else "ip"
    other = next((r.table for r in facts.routes if r.table != MAIN_TABLE), None)
    if other is not None:
        return [f"{ip} rule add from {pair.local} lookup {other}"]
    ifindex = next((a.ifindex for a in picture.addresses.there if a.ip == pair.local), 0)
    table, of_main = OWN_TABLE + ifindex, _in_main(facts)
    gateway = of_main[0] if of_main else "GATEWAY"
    return [
        f"{ip} route add default{_via(gateway)} dev {quote(facts.interface)} table {table}",
        f"{ip} rule add from {pair.local} lookup {table}",
    ]


def _in_main(facts: PathFacts) -> Sequence[str]:
    """The gateways by which the table main leads to there, "" for the link itself, which comes last."""
    return sorted((r.gateway for r in facts.routes if r.table == MAIN_TABLE), reverse=True)


def _via(gateway: str) -> str:
    return f" via {gateway}" if gateway else ""


def just_sent(missing: MissingPair) -> bool:
    """Whether it is too early to say anything of its SYN."""
    return missing.age_s is not None and missing.age_s < SOON_S and not missing.retransmits


def unanswered(
    missing: MissingPair, picture: Picture, facts: PathFacts | None, evidence: Evidence
) -> Finding:
    """Of a subflow in SYN_SENT, or of one that timed out."""
    pair = missing.pair
    if just_sent(missing) and not missing.failures:
        return Finding("opening", "The SYN has just been sent.", (f"{missing.age_s:.2f} s ago",))
    shown = [f"the last subflow ended so: {missing.reason}"] if missing.reason else []
    if missing.state is PairState.OPENING:
        times = "" if missing.retransmits is None else f"; retransmits: {missing.retransmits}"
        shown.insert(0, f"its SYN has been without an answer for {missing.age_s:.1f} s{times}")
    # Packets from an address on `lo` or a dummy leave by another interface, and their answers come there.
    holder = any(a.holder for a in picture.addresses.there if a.ip == pair.local)
    if facts and facts.drops_answers and not holder:
        return _dropped_here(pair, facts, shown, evidence)
    if family_of(pair.local) == 4:
        shown.append("rp_filter of this host does not drop the answer")
    if facts and facts.leaves_by and holder:
        return Finding(
            "source_filtered",
            f"Packets from {pair.local} leave by {facts.leaves_by}, whose routers may not expect that source "
            "and drop them (rp_filter, BCP 38), or do not know the way back to it.",
            (*shown, f"{route_get(pair, 0)}: dev {facts.leaves_by}"),
            (try_tcp(pair), watch(pair)),
            likely=True,
        )
    return Finding(
        "syn_unanswered",
        f"No answer came from {pair.remote} port {pair.remote_port}. A firewall drops SYNs with MP_JOIN; "
        "or a router on the way drops packets from this source, as strict rp_filter does in silence; or "
        "it does not know the way back. If curl says that it is connected, MPTCP's options are the "
        "reason.",
        tuple(shown),
        (try_tcp(pair), watch(pair)),
        likely=True,
    )


def _dropped_here(pair: Pair, facts: PathFacts, shown: list[str], evidence: Evidence) -> Finding:
    """As fib_validate_source() judges: where would a packet to the peer leave?"""
    everywhere, here = facts.rp_filter
    name = facts.interface
    reverse = f"leaves by {facts.answers}" if facts.answers else "has no route"
    return Finding(
        "rp_filter",
        f"Strict rp_filter on {name} of this host drops the answer, since a packet from {pair.local} to "
        f"{pair.remote} {reverse}. 2 (loose) lets it in; `addresses.source_routing: true` makes the way "
        "right.",
        (
            *shown,
            f"net.ipv4.conf.all.rp_filter is {everywhere} and that of {name} {here}: the larger one holds",
            f"{route_get(pair, 0)}: {f'dev {facts.answers}' if facts.answers else 'no route'}",
            *evidence.rise_of("TcpExtIPReversePathFilter"),
        ),
        (f"sysctl -w {quote(f'{rp_filter_name(name)}=2')}",),
    )


def rp_filter_name(interface: str) -> str:
    """As sysctl(8) takes it: the slash separates where the name has a dot."""
    name = f"net/ipv4/conf/{interface}/rp_filter"
    return name if "." in interface else name.replace("/", ".")


def route_get(pair: Pair, mark: int) -> str:
    """The question about routes that the kernel asks itself."""
    return f"ip route get {pair.remote} from {pair.local}{f' mark {mark:#x}' if mark else ''}"


def try_tcp(pair: Pair) -> str:
    """Whether plain TCP gets through from this address."""
    remote = f"[{pair.remote}]" if ":" in pair.remote else pair.remote
    return f"curl -sv -m 3 --interface {pair.local} telnet://{remote}:{pair.remote_port}"


def watch(pair: Pair) -> str:
    """Shows what leaves and what comes back."""
    return f"tcpdump -ni any host {pair.local} and host {pair.remote} and tcp port {pair.remote_port}"
