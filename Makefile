# Shortcuts for the scripts, which have all the options: make chaos ARGS=--list
.DEFAULT_GOAL := help
.PHONY: help run check test chaos bench up down

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s  %s\n", $$1, $$2 }' Makefile

run: ## run the whole system on this machine, without Docker, until Ctrl-C
	@./scripts/local.sh $(ARGS)

check: ## run all static checks, as CI does
	@./scripts/check.sh $(ARGS)

test: ## run all tests that this machine can run
	@./scripts/test.sh $(ARGS)

chaos: ## inject faults and verify that no message is lost
	@./scripts/chaos.sh $(ARGS)

bench: ## measure throughput, CPU time, memory and latency
	@./scripts/bench.sh $(ARGS)

up: ## start the Docker Compose stack
	@./scripts/setup.sh $(ARGS)

down: ## stop the Docker Compose stack and keep its data
	@./scripts/teardown.sh $(ARGS)
