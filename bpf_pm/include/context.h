/* SPDX-License-Identifier: GPL-2.0-only */
/* How programs read the context of a callback, struct bpf_sock_ops, and the addresses in it. */
#ifndef MPTCP_PM_CONTEXT_H
#define MPTCP_PM_CONTEXT_H

#define AF_INET 2
#define AF_INET6 10
#define ENOSPC 28

/*
 * One u32 of the context. Volatile: clang merges loads of neighbouring fields into one of 64 bits,
 * which the verifier rejects.
 */
#define FIELD(ctx, name) (*(const volatile u32 *)&(ctx)->name)

/*
 * The compiler neither moves loads and stores across this nor remembers values that it stored before.
 * It serves the verifier in two ways. Loads of the context in two branches are not merged into one
 * from a computed offset, which the verifier rejects. And what is read back from a map has an unknown
 * value, whichever way led there: the verifier then follows the code behind once, not once per way.
 */
#define barrier() asm volatile("" ::: "memory")

/*
 * 1 where a number below 2^31 is zero, else 0. The compiler does not see what it is, and makes no branch
 * of it: the verifier would explore both ways in every iteration of a loop.
 */
static __always_inline u32 is_zero(u32 number)
{
	asm volatile("" : "+r"(number));
	return (number - 1) >> 31;
}

/* The lesser of two numbers that are not far apart, without a branch either. */
static __always_inline s32 lesser(s32 a, s32 b)
{
	s32 more = a - b;

	asm volatile("" : "+r"(more));
	return b + (more & more >> 31);
}

/*
 * Copy an IP address from the context; IPv4 becomes ::ffff:a.b.c.d. `ip4` and `ip6` point to the
 * context's fields of either family.
 */
static __always_inline void copy_ip(u32 ip[4], u32 family, const volatile u32 *ip4,
				    const volatile u32 *ip6)
{
	if (family == AF_INET) {
		ip[0] = 0;
		ip[1] = 0;
		ip[2] = bpf_htonl(0xffff);
		ip[3] = *ip4;
		barrier();
		return;
	}
	ip[0] = ip6[0];
	ip[1] = ip6[1];
	ip[2] = ip6[2];
	ip[3] = ip6[3];
	barrier();
}

#endif
