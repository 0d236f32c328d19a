/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The database's tables, and how an older file becomes a newer one: each step once, in a transaction, noted in
 * `migration`. */
#include "config/db.h"

int lb_schema_update(struct lb_db *db);
