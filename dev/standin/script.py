"""Prompts that say themselves what the agent shall do, one instruction a line.

    write notes/a.txt: some text      (\\n in the text is a new line)
    read notes/a.txt
    edit notes/a.txt: some => other
    run: make test
    sleep 2.5                         the model takes its time, whatever the server's speed
    say that was it
    answer {"summary": "…"}           for the caller's schema, and made to fit it
    use Glob {"pattern": "*.md"}      any tool, its input as it stands

Other lines are for the reader. Paths are taken from the working directory. What a check printed, and
an error that was reported, instructs too, though it is quoted: an agent that mends goes by it.
"""

import json
import re

from dev.standin.messages import JSON
from dev.standin.scenario import Answer, Say, Step, Think, Use

LINE = re.compile(
    r"""\s*(?:[-*]\ +)?(?:
        write\ +(?P<write>\S+?):\ (?P<text>.*)
      | read\ +(?P<read>\S+)
      | edit\ +(?P<edit>\S+?):\ (?P<old>.*?)\ =>\ (?P<new>.*)
      | run:\ *(?P<run>.+)
      | sleep\ +(?P<sleep>\d+(?:\.\d+)?)
      | say\ +(?P<say>.+)
      | answer\ +(?P<answer>\{.*\})
      | use\ +(?P<tool>\w+)\ +(?P<input>\{.*\})
    )\s*""",
    re.VERBOSE | re.IGNORECASE,
)

TOLD = re.compile(r"<(check-output|reported-error)>.*?</\1>", re.DOTALL)


def steps(prompt: str) -> tuple[Step, ...]:
    """The steps that a prompt asks for; none if it has no line of this form."""
    heard = TOLD.sub(lambda block: block[0].replace("\n| ", "\n"), prompt)
    found = [LINE.fullmatch(line) for line in heard.splitlines()]
    return tuple(_step(match) for match in found if match)


def _step(line: re.Match[str]) -> Step:
    match line.lastgroup:
        case "sleep":
            return Think(float(line["sleep"]), real=True)
        case "answer":
            return Answer(_data(line["answer"]))
        case "say":
            return Say(line["say"])
        case _:
            return _use(line)


def _use(line: re.Match[str]) -> Use:
    match line.lastgroup:
        case "text":
            content = line["text"].replace("\\n", "\n")
            return _call("Write", file_path=_path(line["write"]), content=content)
        case "read":
            return _call("Read", file_path=_path(line["read"]))
        case "new":
            path, old, new = _path(line["edit"]), line["old"], line["new"]
            return _call("Edit", file_path=path, old_string=old, new_string=new)
        case "input":
            return Use(((line["tool"], _data(line["input"])),))
        case _:
            return _call("Bash", command=line["run"], description="As the prompt says")


def _call(tool: str, **tool_input: str) -> Use:
    return Use(((tool, dict(tool_input)),))


def _path(told: str) -> str:
    return told if told.startswith("/") else "{cwd}/" + told


def _data(told: str) -> JSON:
    try:
        return json.loads(told)
    except json.JSONDecodeError:
        return {"text": told}
