# SPDX-License-Identifier: GPL-2.0-or-later
CFLAGS += -isystem $(O)/usr/include
PROGRAMS := $(addprefix $(OUTPUT)/,$(TEST_GEN_PROGS) $(TEST_GEN_FILES))
.PHONY: all install emit_tests
all: $(PROGRAMS)
$(OUTPUT)/%: %.c
	@$(CC) $(CFLAGS) $< $(LDLIBS) -o $@
install: all
	@cp -a $(PROGRAMS) $(TEST_PROGS) $(TEST_FILES) $(wildcard config settings) $(INSTALL_PATH)/
emit_tests:
	@for name in $(TEST_GEN_PROGS) $(TEST_PROGS); do echo "$(COLLECTION):$$name"; done
