# Thin targets over scripts/, which do the work and have a --help each.
# Settings are given as in: make swarm VIEWS=1 FAULTS="--drop-lock" REPLICAS=5

.DEFAULT_GOAL := help
.PHONY: help static image swarm swarm-down single run test soak bench clean

help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s%s\n", $$1, $$2 }'

static: ## Build the static binary target/static/walbanger
	@scripts/build-static

image: ## Build the container image (IMAGE)
	@scripts/image

swarm: ## Run three replicas as a swarm service (VIEWS, FAULTS, REPLICAS, KILL_EVERY, ARGS, IMAGE, WORKDIR)
	@scripts/swarm

swarm-down: ## End the swarm service and remove all that belongs to it
	@scripts/swarm-down

single: ## Bang in one container with ~/tmp as its /db (ARGS, IMAGE, WORKDIR)
	@scripts/single $(ARGS)

run: ## Bang on the host on the same directory (ARGS, WORKDIR)
	@scripts/run $(ARGS)

test: ## Run all tests
	@scripts/test

soak: ## Run the long checks of clean views (ARGS)
	@scripts/soak $(ARGS)

bench: ## Measure throughput and latency, natively and through views
	@scripts/bench

clean: ## Remove the image and all that was built
	@scripts/clean
