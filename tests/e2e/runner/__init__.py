"""What stands in for GitHub's runner, where the workflows are run on this machine by `act`.

The workflows' own scripts and expressions are run as they are.  Each action of others is replaced
by a folder below `actions/`, named after the action's repository, that does with buildah, skopeo,
git and files what the action does with Docker's and GitHub's services; the programs `docker`, `gh`
and `cosign` by modules here.  A stand-in does what the workflows ask of it and refuses everything
else, so a workflow that asks for more fails here rather than seem to work.

`tests.e2e.github` tells the stand-ins where things are by variables that begin with STANDIN_.
"""
