# SPDX-License-Identifier: Apache-2.0
"""Why one pair has no subflow, or fewer than wanted. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pm.findings import Finding
from pm.kernel import PathFacts
from pm.model import Pair, token_text
from pm.sessions.evidence import Evidence
from pm.sessions.missing import MissingPair, PairState, Picture
from pm.sessions.session import FailureKind, Retry, Session
from pm.sessions.why_paths import just_sent, no_route, route_get, try_tcp, unanswered, watch
from pm.sessions.why_session import ON_THE_PEER


def pair_findings(missing: MissingPair, picture: Picture, evidence: Evidence) -> list[Finding]:
    """What is between the pair and a subflow, the cause first."""
    session, pair = picture.session, missing.pair
    retry = session.retries.get(pair) if session.retries else None
    facts = evidence.paths.get(pair)
    match missing.state:
        case PairState.NO_ROUTE:
            return [no_route(missing, picture, facts, evidence)]
        case PairState.OPENING if retry and just_sent(missing):
            return [_failure(missing, retry, picture, facts, evidence)]
        case PairState.OPENING:
            return [unanswered(missing, picture, facts, evidence)]
        case PairState.FAILED:
            assert retry
            return [_failure(missing, retry, picture, facts, evidence), _backoff(session, missing)]
        case PairState.STUCK:
            return [_stuck(missing)]
        case PairState.CLOSED:
            return [_closed(session, pair)]
    return list(_waiting(session, missing, evidence))


def _failure(
    missing: MissingPair, retry: Retry, picture: Picture, facts: PathFacts | None, evidence: Evidence
) -> Finding:
    pair = missing.pair
    said = f"the last subflow ended so: {retry.reason}"
    match retry.kind:
        case FailureKind.UNANSWERED:
            return unanswered(missing, picture, facts, evidence)
        case FailureKind.UNREACHABLE:
            return Finding(
                "unreachable",
                f"A router or a firewall answered with ICMP that {pair.remote} cannot be reached from "
                f"{pair.local}.",
                (said,),
                (try_tcp(pair), watch(pair)),
            )
        case FailureKind.RESET:
            return Finding(
                "connection_refused",
                f"An RST answered the SYN. Nothing listens on {pair.remote} port {pair.remote_port}, as "
                "when a server listens on one of its addresses only; or a firewall rejects it.",
                (said,),
                (try_tcp(pair), f"{ON_THE_PEER}ss -ltn sport = :{pair.remote_port}"),
                likely=True,
            )
        case FailureKind.NO_MPTCP:
            return Finding(
                "join_option_missing",
                f"{pair.remote} answered without MP_JOIN. Something on this path removes MPTCP's options, or "
                "what answers there is not this peer (a proxy, a NAT, another host).",
                (said, *evidence.rise_of("MPTcpExtMPJoinSynTx", "MPTcpExtMPJoinSynAckRx")),
                (watch(pair),),
                likely=True,
            )
        case FailureKind.REFUSED:
            return Finding(
                "refused_by_peer",
                "The peer answered the SYN and then refused the subflow. Most often its limit of subflows is "
                "reached, or its path manager accepts none. A larger limit holds for new connections.",
                (said, *evidence.rise_of("MPTcpExtMPRstRx", "MPTcpExtMPJoinSynAckHMacFailure")),
                (
                    f"{ON_THE_PEER}ip mptcp limits set subflow 8",
                    f"{ON_THE_PEER}nstat -az MPTcpExtMPJoinRejected",
                ),
            )
        case FailureKind.COMMAND:
            return Finding(
                "refused_by_kernel",
                f"The kernel did not open the subflow from {pair.local}.",
                (said,),
                (route_get(pair, picture.session.mark), "ip address show"),
            )
    return Finding("subflow_lost", "The subflow was established, and was lost.", (said,), (try_tcp(pair),))


def _backoff(session: Session, missing: MissingPair) -> Finding:
    tries = "once" if missing.failures == 1 else f"{missing.failures} times in a row"
    return Finding(
        "backoff",
        f"It failed {tries}, and is tried again in {missing.retry_in_s or 0:.0f} s. By hand it is tried at "
        "once.",
        (),
        (_open_by_hand(session, missing.pair),),
    )


def _stuck(missing: MissingPair) -> Finding:
    return Finding(
        "stuck",
        "The subflow is established, but what this end sends is not acknowledged any more. A NAT or firewall "
        "on the path forgot the connection, or the path is gone. Another subflow is opened on the pair.",
        ("sock_diag shows a growing backoff and no progress in two looks",),
        (f"ss -tni dst {missing.pair.remote}",),
        likely=True,
    )


def _closed(session: Session, pair: Pair) -> Finding:
    return Finding(
        "closed_by_operator",
        "The subflow was closed by hand: the path manager does not open it again until the policy changes.",
        (),
        (_open_by_hand(session, pair),),
    )


def _open_by_hand(session: Session, pair: Pair) -> str:
    return (
        f"mptcp-pm subflow add {token_text(session.token)} --local {pair.local} --remote {pair.remote} "
        f"--port {pair.remote_port}"
    )


def _waiting(session: Session, missing: MissingPair, evidence: Evidence) -> Iterator[Finding]:
    if not session.started:
        return  # said of the session
    if session.opens_wait_until > evidence.now:
        yield Finding(
            "rate_limited",
            "More subflows are wanted than may be opened in a second: `limits.opens_per_second` and "
            "`limits.opens_per_session_per_second` in the configuration say how many.",
            (f"the session's turn comes in {session.opens_wait_until - evidence.now:.1f} s",),
            ("mptcp-pm reload",),
        )
    elif evidence.program:
        yield Finding(
            "left_to_program",
            f"The program {evidence.program} opens the subflows, and has not opened this one. The service "
            "does it a second after something happened to the session.",
            (),
            ("mptcp-pm status",),
        )
    else:
        yield Finding(
            "not_opened_yet",
            "The subflow is wanted, and has not been opened yet.",
            (f"the last one ended so: {missing.reason}",) if missing.reason else (),
            (_open_by_hand(session, missing.pair),),
        )
