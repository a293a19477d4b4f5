"""The checker finds each anomaly and each broken law of a history, and nothing in a sound one."""

import math

import pytest

from simlib.checker import ANOMALIES, LAWS, check, story
from simlib.domain import (
    ANNOUNCED,
    CONFIRMED,
    COPIED,
    COPY,
    COUNTED,
    ISSUED,
    ORDER,
    PAID,
    RESTOCKED,
    SHIPPED,
    STOCK,
    STOCK_QUERY,
    STOCK_UPDATE,
    TAKEN,
    undone,
)
from simlib.errors import BadInput
from simlib.history import History


def update(issued, version, **more):
    """An update that was answered and applied, unless said otherwise."""
    found = {"responded": issued + 0.1, "response": "ok", "outcome": "applied", "quantity": 0}
    return {"kind": STOCK_UPDATE, "issued": issued, "version": version, **found, **more}


def order(issued, version, **more):
    return {**update(issued, version), "kind": ORDER, "quantity": 1, **more}


def query(issued, version, **more):
    return {**update(issued, version), "kind": STOCK_QUERY, "outcome": "answered", **more}


def sound():
    """An update, an order and a query of one SKU, and one of another; nothing is wrong with them."""
    messages = [update(0.0, 1, quantity=1), order(1.0, 2), query(2.0, 2), update(3.0, 1, sku=1, outcome="superseded")]
    messages.append(update(3.1, 2, sku=1))
    effects = [
        *((0, ISSUED, 0.01, 1, 1), (0, COPIED, 0.1, 1), (1, TAKEN, 1.05, 2, -1), (1, ANNOUNCED, 1.2, 2)),
        *((3, ISSUED, 3.01, 1), (4, ISSUED, 3.11, 2), (4, COPIED, 3.2, 2)),
    ]
    return messages, effects


def only(verdict, *found):
    """Whether the verdict is of these findings and no others."""
    names = {name for name, count in verdict.counts.items() if count} | {v.name for v in verdict.violations}
    return names == set(found)


def test_a_sound_history_has_no_findings(make_history):
    verdict = check(make_history(*sound(), stock={"units": 0, "sale": None}))
    assert verdict.ok
    assert only(verdict)
    assert set(verdict.counts) == set(ANOMALIES)


def test_an_empty_history_has_no_findings(make_history):
    assert only(check(make_history([])))


@pytest.mark.parametrize("outcome", ["superseded", "rejected", "dead_lettered", "in_flight"])
def test_a_message_promised_and_gone_is_lost_unless_something_accounts_for_it(make_history, outcome):
    messages, effects = sound()
    messages[3].update(outcome="lost")
    assert only(check(make_history(messages, effects)), "lost")
    assert check(make_history(messages, effects)).offenders("lost") == (3,)
    messages[3].update(outcome=outcome)
    assert only(check(make_history(messages, effects)))


def test_a_message_that_claims_an_effect_it_never_had_is_lost_and_contradicted(make_history):
    verdict = check(make_history([update(0.0, 1)], [(0, ISSUED, 0.0, 1)]))
    assert only(verdict, "lost", "half_done", "outcome")


def test_an_effect_again_is_one_duplicated_message_and_the_issue_of_an_update_is_no_effect(make_history):
    effects = [(0, TAKEN, 0.1, 1, -1), (0, TAKEN, 0.2, 2, -1), (0, TAKEN, 0.3, 3, -1), (0, ANNOUNCED, 0.4, 3)]
    verdict = check(make_history([order(0.0, 1)], effects))
    assert only(verdict, "duplicated")
    assert verdict.counts["duplicated"] == 1
    twice = check(make_history([update(0.0, 1)], [(0, ISSUED, 0.0, 1), (0, COPIED, 0.1, 1), (0, COPIED, 0.2, 1)]))
    assert only(twice, "duplicated")
    assert only(check(make_history([update(0.0, 1)], [(0, ISSUED, 0, 1), (0, ISSUED, 0, 2), (0, COPIED, 0.1, 2)])))


UNHEARD = [("failed", "denied"), ("refused", "denied"), ("timed_out", "recovered"), ("none", "recovered")]


@pytest.mark.parametrize(("response", "anomaly"), UNHEARD)
def test_an_effect_that_the_caller_does_not_know_of_is_recovered_or_was_denied(make_history, response, anomaly):
    told = {"response": response, "responded": math.nan if response == "none" else 0.1}
    verdict = check(make_history([order(0.0, 1, **told)], [(0, TAKEN, 0.5, 1, -1), (0, ANNOUNCED, 0.6, 1)]))
    assert only(verdict, anomaly)
    assert only(check(make_history([order(0.0, -1, **told, outcome="rejected")])))


def test_an_order_promised_and_rejected_is_oversold_and_one_refused_though_there_were_units_is_undersold(make_history):
    stock = {"stock": {"units": 1, "sale": None}}
    rejected = order(0.0, -1, outcome="rejected")
    assert only(check(make_history([rejected], **stock)), "oversold")
    assert only(check(make_history([{**rejected, "response": "refused"}], **stock)), "undersold")
    assert only(check(make_history([{**rejected, "response": "refused", "quantity": 2}], **stock)))
    assert only(check(make_history([{**rejected, "response": "refused"}])))  # who knows


def test_a_change_that_the_copy_never_learned_of_is_half_done_unless_it_learned_of_a_newer_one(make_history):
    messages = [order(0.0, 1), order(1.0, 2), order(2.0, 3)]
    taken = [(0, TAKEN, 0.1, 1, -1), (1, TAKEN, 1.1, 2, -1), (2, TAKEN, 2.1, 3, -1)]
    verdict = check(make_history(messages, [*taken, (1, ANNOUNCED, 3.0, 2)]))
    assert only(verdict, "half_done") and verdict.offenders("half_done") == (2,)
    back = [(2, undone(TAKEN), 3.0, 4, 1), (2, RESTOCKED, 3.5, 4)]
    messages[2].update(outcome="compensated", response="refused")
    assert only(check(make_history(messages, [*taken, *back[:1]])), "half_done")
    assert only(check(make_history(messages, [*taken, *back])))


def process(*effects, **more):
    """An order through all steps of a process, and its history's effects: (effect, time, version, change)."""
    return [{**order(0.0, 1), **more}], [(0, effect, *rest) for effect, *rest in effects]


WHOLE = [(TAKEN, 0.1, 1, -1), (ANNOUNCED, 0.2, 1), (PAID, 0.3), (SHIPPED, 0.4), (CONFIRMED, 0.5)]
BACK = [(undone(TAKEN), 1.0, 2, 1), (RESTOCKED, 1.1, 2)]


def test_an_order_of_several_steps_is_half_finished_where_some_stand_and_others_do_not(make_history):
    for steps in (0, 1, 3, 4, 5):
        rejected = {} if steps else {"outcome": "rejected", "response": "refused", "version": -1}
        verdict = check(make_history(*process(*WHOLE[:steps], **rejected), process="fulfilment"))
        assert ("half_finished" in verdict.found and verdict.counts["half_finished"]) == (0 < steps < 5)
        assert verdict.ok, str(verdict)
    assert only(check(make_history(*process(*WHOLE[:2]))))  # a simple process has one step


def test_an_order_that_was_undone_is_nothing_to_complain_of_and_one_that_was_promised_before_is_oversold(make_history):
    undoing = (*WHOLE[:3], *BACK[:1], (undone(PAID), 0.9), *BACK[1:])
    undoing = sorted(undoing, key=lambda effect: effect[1])
    told = {"outcome": "compensated", "response": "refused", "version": 2}
    assert only(check(make_history(*process(*undoing, **told), process="fulfilment")))
    promised = check(make_history(*process(*undoing, **told | {"response": "ok"}), process="fulfilment"))
    assert only(promised, "oversold")


def test_an_order_of_which_something_is_left_is_not_compensated(make_history):
    told = {"outcome": "compensated", "response": "refused", "version": 2}
    paid_twice = (*WHOLE[:3], (PAID, 0.35), (undone(PAID), 0.9), *BACK)
    verdict = check(make_history(*process(*paid_twice, **told), process="fulfilment"))
    assert only(verdict, "duplicated", "half_finished", "outcome")
    assert only(check(make_history(*process(*WHOLE, **told | {"version": 1}), process="fulfilment")), "outcome")


def test_what_is_undone_more_often_than_it_was_done_is_unexpected(make_history):
    twice = (*WHOLE, (undone(PAID), 0.9), (undone(PAID), 0.95))
    verdict = check(make_history(*process(*twice), process="fulfilment"))
    assert only(verdict, "unexpected", "half_finished")
    assert only(check(make_history(*process(*WHOLE, (undone(TAKEN), 1.0, 2, 2), version=2))), "unexpected", "half_done")


def test_an_order_is_miscounted_where_windows_count_it_twice_or_count_and_leave_it_out(make_history):
    taken = [(0, TAKEN, 0.1, 1, -1), (0, ANNOUNCED, 0.2, 1), (1, TAKEN, 1.1, 1, -1, 1), (1, ANNOUNCED, 1.2, 1, 0, 1)]
    one, other, again = (0, COUNTED, 1.3, 1), (1, COUNTED, 1.3, 1, 0, 1), (1, COUNTED, 1.4, 2, 0, 1)
    orders = [order(0.0, 1), order(1.0, 1, sku=1)]
    assert only(check(make_history(orders, [*taken, one, other])))
    assert only(check(make_history(orders, taken))), "nobody counts"
    for effects, offender in (([one, other, again], 1), ([one], 1), ([other], 0)):
        verdict = check(make_history(orders, [*taken, *effects]))
        assert only(verdict, "miscounted") and verdict.offenders("miscounted") == (offender,)
    pending = [orders[0], order(1.0, 1, sku=1, response="ok", outcome="in_flight")]
    assert only(check(make_history(pending, [*taken[:2], one])))


def test_a_customer_who_does_not_see_the_own_order_saw_no_stale_read_where_it_was_taken_meanwhile(make_history):
    asked = query(1.0, 0, session=7)
    messages = [order(0.0, 1, session=7), asked, query(1.0, 0, session=8)]
    verdict = check(make_history(messages, [(0, TAKEN, 1.05, 1, -1), (0, ANNOUNCED, 1.2, 1)]))
    assert only(verdict, "unseen_write") and verdict.offenders("unseen_write") == (1,)


def test_effects_of_nobody_or_of_the_wrong_kind_are_unexpected(make_history):
    messages, effects = sound()
    verdict = check(make_history(messages, [*effects, (9, COPIED, 4.0, 2)]))
    assert only(verdict, "unexpected")
    assert verdict.offenders("unexpected") == (9,)
    verdict = check(make_history([*messages, update(4.0, 3)], [*effects, (5, TAKEN, 4.0, 3), (5, COPIED, 4.1, 3)]))
    assert only(verdict, "unexpected")
    assert verdict.offenders("unexpected") == (5,)
    asked = check(make_history([query(0.0, 0, outcome="applied")], [(0, COPIED, 0.1)]))
    assert asked.offenders("unexpected") == (0,)


def test_a_workload_of_ones_own_may_have_any_effect(make_history):
    job = {"kind": "job", "issued": 0.0, "outcome": "applied"}
    assert only(check(make_history([job], [(0, "done", 1.0)])))


@pytest.mark.parametrize(
    ("place", "effect"),
    [(0, (0, ISSUED, 0.01, 1, 2)), (2, (1, TAKEN, 1.05, 2, -2)), (6, (4, COPIED, 3.2, 2, 0, 0))],
)
def test_effects_of_another_size_or_sku_are_unexpected(make_history, place, effect):
    messages, effects = sound()
    effects[place] = effect
    assert check(make_history(messages, effects)).offenders("unexpected") == (effect[0],)


def test_a_read_is_stale_by_what_was_made_before_it_was_issued(make_history):
    def reads(at, version):
        return check(make_history([update(0.0, 1), query(at, version)], [(0, ISSUED, 0.5, 1), (0, COPIED, 2.0, 1)]))

    assert only(reads(1.0, 0), "stale")
    assert only(reads(0.45, 0))  # made while it was under way
    assert only(reads(0.5, 0))  # made in the same instant
    assert only(reads(1.0, 1))


def test_an_older_version_written_to_the_copy_after_a_newer_one_is_reordered(make_history):
    messages = [update(0.0, 1), order(1.0, 2), update(2.0, 3), update(2.5, 1, sku=1)]
    made = [(0, ISSUED, 0.0, 1), (1, TAKEN, 1.0, 2, -1), (2, ISSUED, 2.0, 3), (3, ISSUED, 2.5, 1)]
    verdict = check(
        make_history(
            messages, [*made, (2, COPIED, 3.0, 3), (0, COPIED, 3.1, 1), (1, ANNOUNCED, 3.2, 2), (3, COPIED, 3.3, 1)]
        )
    )
    assert only(verdict, "reordered")
    assert verdict.offenders("reordered") == (0, 1)
    in_turn = [(0, COPIED, 3.0, 1), (1, ANNOUNCED, 3.1, 2), (2, COPIED, 3.2, 3), (3, COPIED, 3.3, 1)]
    assert only(check(make_history(messages, [*made, *in_turn])))


BROKEN = {
    "ids": lambda m, e: m[2].update(message=7),
    "outcome": lambda m, e: m[0].update(outcome="perished"),
    "counts": lambda m, e: m[0].update(effects=2),
    "applied": lambda m, e: m[0].update(applied=0.2),
    "response_time": lambda m, e: m[1].update(responded=0.5),
    "effect_time": lambda m, e: e.__setitem__(0, (0, ISSUED, -0.5, 1, 1)),
    "effect_order": lambda m, e: e.__setitem__(slice(2, 4), e[3:1:-1]),
    "versions": lambda m, e: (
        e.__setitem__(slice(5, 7), [(4, ISSUED, 3.11, 5), (4, COPIED, 3.2, 5)]),
        m[4].update(version=5),
    ),
    "units": lambda m, e: (e.__setitem__(2, (1, TAKEN, 1.05, 2, -2)), m[1].update(quantity=2)),
    "copied": lambda m, e: e.__setitem__(slice(2, 4), [(1, ANNOUNCED, 1.02, 2), (1, TAKEN, 1.05, 2, -1)]),
    "read": lambda m, e: m[2].update(version=3),
}


def test_there_is_a_breach_for_every_law():
    assert set(BROKEN) == set(LAWS) - {"parts"}


@pytest.mark.parametrize("law", BROKEN)
def test_each_law_is_missed_when_it_alone_is_broken(make_history, law):
    messages, effects = sound()
    BROKEN[law](messages, effects)
    verdict = check(make_history(messages, effects, stock={"units": 0, "sale": None}))
    assert not verdict.ok
    assert [violation.name for violation in verdict.violations] == [law]
    assert verdict.offenders(law)
    assert LAWS[law] in str(verdict)


@pytest.mark.parametrize(
    ("change", "effects"),
    [
        ({"outcome": "applied"}, []),
        ({"outcome": "failed"}, []),
        ({"outcome": "lost", "response": "failed"}, []),
        ({"outcome": "dead_lettered"}, [(0, TAKEN, 0.1, 1, -1)]),
        ({"response": "perhaps"}, [(0, TAKEN, 0.1, 1, -1)]),
    ],
)
def test_an_outcome_must_be_borne_out(make_history, change, effects):
    verdict = check(make_history([order(0.0, 1, **change)], effects))
    assert [violation.name for violation in verdict.violations] == ["outcome"]


def test_a_message_has_a_version_that_it_made(make_history):
    messages, effects = sound()
    messages[1]["version"] = 1
    assert check(make_history(messages, effects)).offenders("versions") == (1,)


def test_a_message_twice_is_not_conserved(make_history):
    messages, effects = sound()
    assert check(make_history([*messages, {"message": 3, **messages[3]}], effects)).offenders("ids") == (3,)


def test_units_are_judged_only_where_the_initial_stock_is_known(make_history):
    history = [order(0.0, 1, sku=0), order(1.0, 1, sku=1)], [(0, TAKEN, 0.1, 1, -1), (1, TAKEN, 1.1, 1, -1)]
    assert check(make_history(*history)).ok
    assert check(make_history(*history, stock={"units": 1, "sale": 0})).offenders("units") == (0,)
    assert check(make_history(*history, stock={"units": 0, "sale": 1})).offenders("units") == (1,)


def test_a_live_commit_may_be_seen_before_its_stamp_but_not_before_its_message(make_history):
    messages, effects = sound()
    effects[2:4] = [(1, ANNOUNCED, 1.02, 2), (1, TAKEN, 1.05, 2, -1)]
    assert check(make_history(messages, effects, engine="live")).ok
    effects[2:4] = [(1, ANNOUNCED, 0.9, 2), (1, TAKEN, 1.05, 2, -1)]
    assert "copied" in {
        violation.name for violation in check(make_history(messages, effects, engine="live")).violations
    }


def test_the_order_of_the_rows_of_messages_does_not_matter(make_history):
    messages, effects = sound()
    shuffled = [{"message": i, **messages[i]} for i in (2, 0, 4, 3, 1)]
    assert only(check(make_history(shuffled, effects)))


def test_a_verdict_can_be_read_counted_and_saved(make_history, tmp_path):
    messages, effects = sound()
    messages[3].update(outcome="lost", responded=2.0)
    history = make_history(messages, effects)
    history.save(tmp_path)
    verdict = check(History.load(tmp_path))
    assert verdict == check(history)
    assert verdict.as_dict() == {**dict.fromkeys(ANOMALIES, 0), "lost": 1, "violations": {"response_time": 1}}
    assert f"lost               1  {ANOMALIES['lost']}: 3" in str(verdict)
    assert f"VIOLATED response_time: {LAWS['response_time']}: broken by 1 message (3)" in str(verdict)
    assert verdict.offenders("duplicated") == verdict.offenders("units") == ()
    with pytest.raises(BadInput, match="unknown finding 'loost': did you mean 'lost'"):
        verdict.offenders("loost")


def test_a_long_list_of_offenders_is_shown_in_part(make_history):
    lost = [update(float(i), -1, outcome="lost") for i in range(12)]
    verdict = check(make_history(lost))
    assert verdict.offenders("lost") == tuple(range(12))
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …" in str(verdict)


def test_a_part_that_is_busier_than_it_can_be_is_named(make_history):
    bins = [("shop.cpu", 1, 0.0, 10.0, 9.0), ("database", 2, 0.0, 10.0, 20.0)]
    assert check(make_history(*sound(), bins)).ok
    verdict = check(make_history(*sound(), [("shop.cpu", 1, 0.0, 10.0, 10.1), *bins]))
    assert only(verdict, "parts") and verdict.offenders("parts") == ("shop.cpu",)
    assert "broken by 1 part (shop.cpu)" in str(verdict)
    assert check(make_history(*sound(), [("shop.cpu", 1, 0.0, 10.0, -1.0)])).offenders("parts") == ("shop.cpu",)


def test_a_read_at_accounting_sees_the_units_of_its_version(make_history):
    def reads(units, store):
        messages = [order(0.0, 1), query(1.0, 1, answer=units, read_from=store)]
        effects = [(0, TAKEN, 0.1, 1, -1), (0, ANNOUNCED, 0.2, 1)]
        return check(make_history(messages, effects, stock={"units": 5, "sale": None}))

    assert only(reads(4, STOCK)) and only(reads(3, COPY))
    assert only(reads(5, STOCK), "read") and reads(5, STOCK).offenders("read") == (1,)


def test_the_story_of_a_message_says_what_it_was_told_and_what_became_of_it(make_history):
    history = make_history(*sound())
    assert story(history, 1) == (
        "1: order of SKU 0, version 2, issued at 1.000 s, ok at 1.100 s; outcome applied; "
        "taken version 2 at 1.050 s; announced version 2 at 1.200 s"
    )
    assert story(history, 9) == "9: never issued"
