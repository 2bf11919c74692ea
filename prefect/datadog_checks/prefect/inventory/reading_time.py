"""How the time of one run of the check is divided between lists that are too long for one run.

Each is the part of the time at which a list is left to the next run. A list of which a little is missing is complete in
its turn; what is missing of a long one is read at the end of the run, so that everything else was reported before.
"""

LISTING_DEPLOYMENTS = 0.4
FUTURE_RUNS = 0.5
# Until then up to 50 work pools are all asked about their workers.
WORKERS = 0.5
# Of the deployments that are not listed yet, those that have runs are asked for by their ids.
DEPLOYMENTS_OF_RUNS = 0.6
LIVE_RUNS = 0.8
END_OF_RUN = 0.85
