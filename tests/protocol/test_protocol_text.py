from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvision_env.errors import UserError
from pyvision_env.protocol import STOP_STRINGS, boxed, format_action, parse
from pyvision_env.types import Action, Answer, FetchFrames, Invalid, RunCode, ToolCalls


def code(*blocks: str) -> RunCode:
    return RunCode(blocks)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<code>```python\nprint(1)\n```</code>", "print(1)"),
        ("<code>\n```py\nprint(1)\n```\n</code>", "print(1)"),
        ("<code>\n```Python3\nprint(1)\n```\n</code>", "print(1)"),
        ("<code>```\nprint(1)\n```</code>", "print(1)"),
        ("<code>```\r\nprint(1)\n```</code>", "print(1)"),
        ("<code>```python print(1)```</code>", "print(1)"),
        ("<code>```print(1)```</code>", "print(1)"),
        ("<code>```py = 3```</code>", "py = 3"),
        ("<code> print(1) </code>", "print(1)"),
        ("<code>\n  a = 1\n  print(a)\n</code>", "a = 1\nprint(a)"),
        ("<CODE>\n```python\nprint(1)\n```\n</Code>", "print(1)"),
        ("< code >print(1)< / code >", "print(1)"),
        ("Let me look.\n<code>```python\nprint(1)\n```</code> and wait", "print(1)"),
        ("<code>````python\nprint('```')\n````</code>", "print('```')"),
        ("<code>```python\n\n  \tx = 1\n\n```</code>", "\n  \tx = 1\n"),
        ("<code>```python\nprint(1)\n</code>", "print(1)"),
        ("<code>````python\nprint(1)\n```</code>", "print(1)"),
        ("I will use <code> now: <code>```python\nprint(1)\n```</code>", "print(1)"),
    ],
)
def test_code_is_read_from_every_usual_form(text: str, expected: str) -> None:
    assert parse(text) == code(expected)


@pytest.mark.parametrize(
    "block",
    [
        'print("<answer>A</answer>")',
        'print("</code>")',
        'x = "<code>"\nprint("</code></code>")',
        'print("<think>")',
        'print("</think> <frames>")',
        'print("```\\n")',
    ],
)
def test_nothing_inside_a_fenced_block_is_a_tag(block: str) -> None:
    assert parse(f"<code>```python\n{block}\n```</code>") == code(block)


def test_an_answer_printed_by_code_without_fence_is_not_an_answer() -> None:
    assert parse('<code>print("<answer>A</answer>")</code>') == code('print("<answer>A</answer>")')


def test_several_blocks_run_in_order_as_one_action() -> None:
    text = "<code>a = 1</code> then <code>```python\nprint(a)\n```</code><code>b</code>"
    assert parse(text) == code("a = 1", "print(a)", "b")


def test_a_block_with_text_after_an_unclosed_fence_does_not_swallow_the_next_block() -> None:
    text = "<code>````\na\n</code> then <code>```python\nb\n```</code>"
    assert parse(text) == code("a", "b")


def test_mixed_tool_calls_keep_their_textual_order() -> None:
    text = '<code>a</code><code>b</code><frames>{"times":[1]}</frames><frames>{"indices":[3]}</frames><code>c</code>'
    assert parse(text) == ToolCalls(
        (code("a", "b"), FetchFrames(times=(1.0,)), FetchFrames(indices=(3,)), code("c")),
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"video": 0, "times": [1.5, 3.0]}', FetchFrames(times=(1.5, 3.0))),
        ('\n { "times" : [ 2 ] } \n', FetchFrames(times=(2.0,))),
        ('{"video": 2, "indices": [0, 10, -1]}', FetchFrames(video=2, indices=(0, 10, -1))),
        ('{"start": 1, "end": 2.5, "num": 4}', FetchFrames(start=1.0, end=2.5, num=4)),
        ('{"num": 4}', FetchFrames(num=4)),
        ('{"start": 3, "end": 3, "num": 1}', FetchFrames(start=3.0, end=3.0, num=1)),
        ('{"video": null, "times": [1], "num": null}', FetchFrames(times=(1.0,))),
    ],
)
def test_frame_requests_are_read(body: str, expected: FetchFrames) -> None:
    assert parse(f"<frames>{body}</frames>") == expected


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("", "nothing came"),
        ("times 1, 2", "times 1, 2"),
        ("[1, 2]", "not an object"),
        ('{"video": 0}', "none of them"),
        ('{"times": [1], "indices": [2]}', "times and indices"),
        ('{"times": [1], "num": 2}', "times and num"),
        ('{"times": [1], "start": 2}', '"start" goes with "num"'),
        ('{"start": 1, "end": 2}', "none of them"),
        ('{"times": [1], "fps": 2}', "'fps'"),
        ('{"times": 1}', "not a list"),
        ('{"times": []}', "not a list"),
        ('{"times": "12"}', "not a list"),
        ('{"times": [true]}', "True"),
        ('{"times": ["1"]}', "'1'"),
        ('{"times": [NaN]}', "NaN"),
        ('{"times": [-Infinity]}', "Infinity"),
        ('{"times": [1e999]}', "inf"),
        ('{"indices": [1.0]}', "1.0"),
        ('{"indices": [true]}', "True"),
        ('{"num": 0}', "at least 1"),
        ('{"num": 2.0}', "2.0"),
        ('{"num": true}', "True"),
        ('{"num": 2, "start": "1"}', '"start" is'),
        ('{"num": 2, "start": 3, "end": 1}', "before"),
        ('{"video": -1, "num": 2}', '"video" is -1'),
        ('{"video": true, "num": 2}', '"video" is True'),
        ('{"video": "0", "num": 2}', "\"video\" is '0'"),
        ('{"num": 2, "num": 3}', "twice"),
        ('{"indices": [' + "9" * 6000 + "]}", "came"),
        ('{"indices": [' + "9" * 30 + "]}", "whole numbers"),
        ('{"times": ' + "[" * 900 + "]" * 900 + "}", "seconds only"),
        ("[" * 100_000, "deep"),
    ],
)
def test_malformed_frame_requests_say_what_came(body: str, named: str) -> None:
    action = parse(f"<frames>{body}</frames>")
    assert isinstance(action, Invalid)
    assert named in action.reason
    assert '{"video": 0, "times": [1.5, 3.0]}' in action.reason
    assert len(action.reason) < 300


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (r"\boxed{B}", "B"),
        ("B", "B"),
        ("\n  the red car \n", "the red car"),
        (r"It is \boxed{ B }.", "B"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {A} no, \boxed{B}", "B"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\text{B}}", r"\text{B}"),
        (r"\boxed{\boxed{B}}", "B"),
    ],
)
def test_answers_are_read_with_and_without_box(content: str, expected: str) -> None:
    assert parse(f"<answer>{content}</answer>") == Answer(text=expected, raw=content)


def test_the_last_answer_of_a_turn_counts_and_wins_over_tool_calls() -> None:
    text = r"<answer>A</answer><code>print(1)</code><frames>oops</frames><answer>\boxed{B}</answer><code></code>"
    assert parse(text) == Answer(text="B", raw=r"\boxed{B}")


def test_a_repeated_opening_tag_starts_the_answer_anew() -> None:
    assert parse("I write <answer> last: <answer>B</answer>") == Answer(text="B", raw="B")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>maybe <answer>A</answer></think><answer>B</answer>", Answer("B", "B")),
        ("<think>I could <code>x</code></think> <code>y</code>", code("y")),
        ("so <answer>A</answer> or not </think><answer>B</answer>", Answer("B", "B")),
        ("use the <code> tag </think><code>y</code>", code("y")),
        ("<code>y</code> <think> hm <answer>A</answer>", code("y")),
        ("<THINK>\n<answer>A</answer>\n</Think >\n<code>y</code>", code("y")),
    ],
)
def test_tags_in_thinking_are_no_actions(text: str, expected: Action) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<code>```python\nprint(1)\n```", code("print(1)")),
        ("<code>```python\nprint(1)\n```\n", code("print(1)")),
        ("<code>print(1)\n", code("print(1)")),
        ('<frames>{"num": 3}', FetchFrames(num=3)),
        (r"<answer>\boxed{B}", Answer("B", r"\boxed{B}")),
    ],
)
def test_a_closing_tag_eaten_by_the_stop_string_may_be_missing_at_the_end(text: str, expected: Action) -> None:
    assert parse(text) == expected


def test_text_cut_at_a_stop_string_reads_like_the_whole_text() -> None:
    for action in (code("print(1)"), FetchFrames(num=2), Answer("B", r"\boxed{B}")):
        whole = format_action(action)
        stops = [stop for stop in STOP_STRINGS if stop in whole]
        assert len(stops) == 1
        assert parse(whole[: whole.index(stops[0])]) == parse(whole) == action


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("The answer is B.", "without any such tag"),
        ("```python\nprint(1)\n```", "a code fence came outside <code>"),
        (r"The answer is \boxed{B}", r"\boxed came outside <answer>"),
        ("print(1)</code>", "no opening tag"),
        ("<code></code>", "empty"),
        ("<code>```python\n\n```</code>", "empty"),
        ("<code>``````</code>", "empty"),
        ("<code>ok</code><code> </code>", "empty"),
        ("<answer></answer>", "empty"),
        ("<answer>", "empty"),
        (r"<answer>\boxed{}</answer>", "empty"),
        (r"<answer>\boxed{B</answer>", "do not balance"),
        (r"<answer>\boxed{A} \boxed{B</answer>", "do not balance"),
        ("<answer>B <code>print(1)</code>", "<answer> to be closed"),
        ("<code>print(1) <answer>B</answer>", "<code> to be closed"),
        ("<code>```python\nprint(1)", "the text ends inside the code"),
        ("<code>ok</code><code>```python\nprint(1)", "the text ends inside the code"),
        ("<think>so <code>x</code>", "<think> was never closed"),
        ("<code>```bash\nls\n```</code>", "'bash'"),
        ("<answer>A</answer></think>", "no action came after the last </think>"),
        ("<think>so</think> B", "no action came after the last </think>"),
    ],
)
def test_a_turn_without_action_says_what_was_expected_and_what_came(text: str, named: str) -> None:
    action = parse(text)
    assert isinstance(action, Invalid)
    assert named in action.reason
    assert "xpected" in action.reason or "runs Python only" in action.reason
    assert action.reason.count("\n") <= 1


def test_an_answer_survives_a_later_block_that_breaks_off() -> None:
    assert parse("<answer>B</answer> <code>```python\nprint(") == Answer("B", "B")


def test_too_many_calls_in_one_turn_run_none() -> None:
    text = "<code>x</code>" * 3
    assert parse(text, max_blocks=3) == code("x", "x", "x")
    action = parse(text, max_blocks=2)
    assert isinstance(action, Invalid)
    assert "at most 2" in action.reason
    assert "3 came" in action.reason


def test_boxed_reads_the_last_balanced_box_only() -> None:
    assert boxed(r"\boxed{1} and \boxed{x_{2}}") == "x_{2}"
    assert boxed("no box") is None
    assert boxed(r"\boxed{open") is None


blocks = st.text(min_size=1).filter(str.strip)
seconds = st.floats(allow_nan=False, allow_infinity=False)
runs = st.lists(blocks, min_size=1, max_size=3).map(lambda found: RunCode(tuple(found)))
video = st.integers(0, 5)
fetches = st.one_of(
    st.builds(FetchFrames, video=video, times=st.lists(seconds, min_size=1, max_size=4).map(tuple)),
    st.builds(FetchFrames, video=video, indices=st.lists(st.integers(-9, 9**9), min_size=1, max_size=4).map(tuple)),
    st.builds(
        lambda video, edges, num: FetchFrames(video=video, start=min(edges), end=max(edges), num=num),
        video,
        st.tuples(seconds, seconds),
        st.integers(1, 64),
    ),
    st.builds(FetchFrames, video=video, start=st.none() | seconds, num=st.integers(1, 64)),
)


@st.composite
def mixed(draw: st.DrawFn) -> ToolCalls:
    calls = draw(st.lists(fetches, min_size=1, max_size=3))
    if len(calls) == 1 or draw(st.booleans()):
        calls.insert(draw(st.integers(0, len(calls))), draw(runs))
    return ToolCalls(tuple(calls))


plain = st.text(st.characters(exclude_characters="<>{}\\"), min_size=1).filter(str.strip)
answers = st.one_of(
    plain.map(lambda text: Answer(text.strip(), text)),
    plain.map(lambda text: Answer(text.strip(), f"so \\boxed{{{text}}}")),
)


@given(st.one_of(runs, fetches, mixed(), answers))
def test_parse_undoes_format(action: Action) -> None:
    assert parse(format_action(action), max_blocks=64) == action


def test_backticks_and_closing_tags_in_code_survive_the_round_trip() -> None:
    for block in ("```</code>", "x = '`````</code>'\n", "`", "```\n```</code>\n````", "</think>"):
        assert parse(format_action(code(block))) == code(block)


def test_an_answer_without_raw_is_boxed() -> None:
    text = format_action(Answer("B"))
    assert text == r"<answer>\boxed{B}</answer>"
    assert parse(text) == Answer("B", r"\boxed{B}")


@pytest.mark.parametrize(
    "action",
    [
        RunCode(()),
        RunCode((" ",)),
        FetchFrames(),
        FetchFrames(times=(1.0,), num=3),
        FetchFrames(times=(float("nan"),)),
        Answer(""),
        Answer("</answer>"),
        Answer("}"),
        Answer("A", r"\boxed{B}"),
        ToolCalls((RunCode(("a",)), RunCode(("b",)))),
        Invalid("no"),
    ],
)
def test_format_refuses_what_the_grammar_cannot_carry(action: Action) -> None:
    with pytest.raises(UserError):
        format_action(action)


pieces = st.sampled_from(
    ["<code>", "</code>", "<answer>", "</answer>", "<frames>", "</frames>", "<think>", "</think>", "```", "`", "python",
     "\n", " ", "x", r"\boxed{", "}", "{", '"num": 3', "<", ">", "/", "\ud800", "é"]
)  # fmt: skip


@settings(max_examples=500)
@given(st.one_of(st.text(), st.lists(pieces, max_size=30).map("".join)))
def test_any_text_gives_an_action_or_a_short_reason(text: str) -> None:
    action = parse(text)
    if isinstance(action, Invalid):
        assert 0 < len(action.reason) < 400
    elif isinstance(action, Answer):
        assert action.text.strip()
        assert action.raw in text
    else:
        assert parse(format_action(action), max_blocks=64) == action


@pytest.mark.parametrize(
    "unit",
    [
        "<code>```x</code>",
        "<code>",
        "<code>``` ",
        "<code>`````x```</code>",
        "<think>",
        "<think></think>",
        "</think>",
        "<code></think>",
        "<answer>",
        r"<answer>\boxed{",
        "<frames>{</frames>",
        "<",
        "< ",
        "`",
        "``` ",
        "<code>\n  <code> ```",
        "\\boxed{",
    ],
)
def test_time_grows_linearly_on_text_made_to_defeat_the_parser(unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            parse(text)
            best = min(best, time.process_time() - start)
        return best

    # Quadratic time would make the ratio 16; the constant covers the clock's grain and a busy machine.
    assert seconds(1_000_000) < 8 * seconds(250_000) + 0.05


def test_an_answer_with_a_megabyte_of_openings_is_read_in_linear_time() -> None:
    text = "<answer>" + r"\boxed{" * 150_000 + "</answer>"
    assert isinstance(parse(text), Invalid)
