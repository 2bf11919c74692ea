"""What a check costs: on a real Prefect server with much in its database, beside its own floor and a naive plan.

`make bench` runs `__main__.py`; nothing of this is in the wheel. Data flows one way: `sizes` -> `seed` (-> `postgres`)
-> `activity` and `changes` -> `measure` (with the processes of `subject`: the check, `floor`, `naive`) -> `table` and
`plot`.
"""
