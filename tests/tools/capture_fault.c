/* SPDX-License-Identifier: Apache-2.0 */
/*
 * capture_fault PIN_FOLDER: makes the running capture drop one write, as if the program had never seen it. Only builds
 * with fault injection can: 3 tells that this one can't.
 */
#include <stdio.h>

#include "base/err.h"
#include "capture/capture.h"

int main(int argc, char **argv)
{
#ifdef LB_FAULT_INJECTION
	_cleanup_capture_ struct lb_capture *capture = NULL;

	if (argc != 2 || lb_capture_open_direct(argv[1], &capture) < 0) {
		fprintf(stderr, "capture_fault: %s\n", argc == 2 ? lb_err_text() : "name the folder of the pins");
		return 2;
	}
	lb_capture_set_faults(capture, LB_FAULT_DROP_WRITE);
	return 0;
#else
	(void)argc;
	(void)argv;
	fprintf(stderr, "capture_fault: this build has no fault injection\n");
	return 3;
#endif
}
