# Thin: each target calls one script.
.PHONY: demo test check bench reference lock clean

demo:  ## a small day-care centre at work, until stopped; ARGS="--seconds 40 --report FILE --seed N" ends by itself
	@sh scripts/demo.sh $(ARGS)

test:  ## install what is needed, check, and run every test on the built wheel
	@bash scripts/test.sh $(ARGS)

check:  ## ruff, mypy, import contracts
	@bash scripts/check.sh

bench:  ## figures, each beside its limit measured in the same run
	@sh scripts/bench.sh $(ARGS)

reference:  ## write docs/reference/ and config/gateway.schema.json from the program itself; ARGS="--check" only compares
	@sh scripts/reference.sh $(ARGS)

lock:  ## write the four hashed locks again (needs uv)
	@sh scripts/lock.sh

clean:
	rm -rf .build
