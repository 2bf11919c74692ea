"""The pages: their links lead somewhere, their snippets parse, and their commands and instances are what they say."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

from datadog_checks.prefect import PrefectCheck
from tests.unit.lint import for_each

ROOT = Path(__file__).parents[3]
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in sorted(
        [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('lab/*.md'), *ROOT.glob('prefect/*.md')]
    )
}
MAKEFILE = (ROOT / 'Makefile').read_text()
TARGETS = set(re.findall(r'^([a-z][a-z0-9-]*):', MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r'\$\((?:if \$\()?([A-Z]+)\)', MAKEFILE)) | {'VERSIONS', 'MINUTES', 'PYTHON'}
COMMAND = re.compile(r'(?:^|[`\s])make ((?:[a-z][a-z0-9-]*)(?: [A-Z]+=\S+)*)', re.MULTILINE)


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The code blocks of a page in one of these languages."""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == 'fence' and token.info.strip() in languages:
            yield token.content


def code(page: Path) -> Iterator[str]:
    """All that a page shows as code."""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == 'fence':
            yield token.content
        yield from (child.content for child in token.children or () if child.type == 'code_inline')


def links(page: Path) -> Iterator[str]:
    for token in MarkdownIt().enable('table').parse(page.read_text()):
        for child in token.children or ():
            if target := child.attrGet('href') or child.attrGet('src'):
                yield str(target)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page ends with, as GitHub makes it."""
    titles = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.replace('`', '')).strip().lower().replace(' ', '-') for title in titles}


@for_each(PAGES)
def test_each_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        if re.match(r'\w+:', target):
            continue
        path, _, anchor = target.partition('#')
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


@for_each(PAGES)
def test_each_make_command_is_one(page: Path) -> None:
    for text in code(page):
        for command in COMMAND.findall(text):
            target, *settings = command.split()
            assert target in TARGETS, command
            assert {setting.partition('=')[0] for setting in settings} <= VARIABLES, command


@for_each(PAGES)
def test_each_snippet_of_a_shell_parses(page: Path) -> None:
    for block in blocks(page, 'shell', 'bash'):
        # A name in capitals between angle brackets is for the reader to fill in.
        text = re.sub(r'<[A-Z_]+>', 'NAME', block)
        done = subprocess.run(['bash', '-n'], input=text, capture_output=True, text=True)
        assert not done.returncode, done.stderr


@for_each(PAGES)
def test_each_document_in_yaml_or_json_parses(page: Path) -> None:
    for block in blocks(page, 'yaml'):
        yaml.safe_load(block)
    for block in blocks(page, 'json'):
        json.loads(block)


def instances(page: Path) -> Iterator[dict[str, Any]]:
    for block in blocks(page, 'yaml'):
        document = yaml.safe_load(block)
        if isinstance(document, dict):
            yield from document.get('instances') or ()


@for_each({name: page for name, page in PAGES.items() if any(instances(page))})
def test_each_instance_is_a_configuration_of_the_check(page: Path) -> None:
    for instance in instances(page):
        check = PrefectCheck('prefect', {}, [instance])
        check.load_configuration_models()
        assert set(instance) <= set(type(check.config).model_fields), instance
