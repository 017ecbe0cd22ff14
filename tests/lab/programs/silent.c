/* SPDX-License-Identifier: GPL-2.0-only */
/* A program that is there and does nothing. */
int silent(struct bpf_sock_ops *skops)
{
	return 1;
}
