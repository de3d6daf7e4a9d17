"""The work behind the tasks, floor by floor; a module imports only from floors below its own, or from above it in this list.

Floor 0 knows nothing but Python: `errors`, `secret`, `redact`, `lexer` (a SQL file as psql sees it), `archive`, `checkup`
(what a check comes to).
Floor 1 is the edge and the pure rules: `dsn`, `shell` (the only starter of processes), `settings` (the only reader of the
environment), `console`, `nodes` (YAML as PyYAML composes it), `render` (a template with its values), `sql` (migration files),
`safety` (what a file may not hold), `rules` (what it had better not), `naming` (what a new one is called), `ledger` (the
ledger's SQL), `plan` (the files against the ledger), `locks` (which statements others feel), `clock` (one that stands still),
`schema` (pg_dump's text, compared), `catalogs` (what they say of everybody's rights), `grants` (those against the design),
`logins` (the application's two login roles), `firewall` and `flexible` (firewall rules and servers by Azure's rules),
`failures` (what az says when something goes wrong), `blueprint` (Azure against what is asked for), `request` (what flags and
settings ask `provision` for), `caller` (this machine's address), `containerapp` (what a Container App may say), `changes` (one
against the one that stands), `wiring` (what a workflow needs, against what stands).
Floor 2 drives one thing each: `embedded` and `container` (a PostgreSQL of our own), `engine` (what Docker it is, and how its
containers come to this machine), `server` (which PostgreSQL is up), `clients` (where psql comes from), `scratch` (servers for
a moment), `psql` (its words), `lock`, `pooler` (between us and the server), `target` (which database, by which psql),
`blockers` (who holds a lock), `explain` (why a file failed), `preflight` (extensions), `pg_dump` (its words), `runner`
(applies the files), `comparison` (of a database with what the files build), `builds` (what they come to), `az` (az's words),
`apps` (those for Container Apps), `identities` (those for a workflow's identity), `gh` (gh's words), `handover` (where a DSN
goes), `access` (rights, through a session), `probe` (the self-test of a role), `opening` (through a firewall, for a while),
`build` (carries a blueprint out), `foundation` (a flexible server that stands), `manifest` (a template with its settings),
`github` (what the deployment needs there), `squawk` (the linter's words), `git` (git's words).
The doctor's checks are `machine` (Python, Docker, psql), `dotfile` (`.env`), `hygiene` (secrets that git tracks), `database`
(a DSN and what it leads to), `subscription` (az and Azure), `workflow` (gh and GitHub), and `checklist` (all of them).
Beside them, for the command line itself: `guide` (its list and help pages, with the examples), `words` (what
was meant by a word that nobody knows), `origins` (where each value comes from), and `face` (the only one that knows Invoke's
Program).
Floor 3 does what a user asks for: `migrate`, `drift`, `lint`, `new` (a migration's file), `prove`, `baseline`, `repair`,
`reset`, `dump`, `status`, `roles`, `rotate`, `teardown`, `deploy`, `setup` (of GitHub and the workflow's identity), `doctor`, and
`provision` and `quickstart`, which call migrate and roles.
Beside the house stands `bootstrap`, standard library only, which makes the environment that the rest runs in.
"""

import sys

# Invoke turns Python's cache of compiled modules off for all that it loads; what the user said of it holds (-B).
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

__version__ = "0.1.0"
PRODUCT = "postgres-serving-split"  # names what belongs to it: containers, volumes, temporary folders, sessions
