"""Write the dashboards below `prefect/assets/dashboards/`.

`--write` writes them, `--check` names those that differ from what is there and exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
import sys

from tools.dashboards.files import wanted


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog='python -m tools.dashboards', description='Write the dashboards, or check.')
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument('--write', action='store_true', help='write the files')
    mode.add_argument('--check', action='store_true', help='exit with 1 if they are not as described')
    options = parser.parse_args(arguments)

    stale = [(path, text) for path, text in wanted().items() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        if options.write:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        else:
            print(f'{path.name} is not as described: run `make generate`')
    return 1 if options.check and stale else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
