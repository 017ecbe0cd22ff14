/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a TCP-option plugin sees: bpf_pm/options/NAME.c includes this file and defines
 *
 *	#define NAME_HEADER OPTION_EXPERIMENTAL	what comes before its value
 *	#define NAME_LENGTH 5		length of the whole option on the wire
 *	option_event NAME_start(o)	the handshake is over: set private state, apply local rules
 *	void NAME_compose(o, value)	write the option's value, NAME_LENGTH - NAME_HEADER bytes
 *	option_event NAME_receive(o, value)	the peer's option, of exactly that length
 *
 * all static __always_inline. The loader knows kind and ExID. The service has the same structures,
 * pm/linux/bpf/tcp_option_layouts.py.
 */
#ifndef MPTCP_PM_OPTION_H
#define MPTCP_PM_OPTION_H

#include "bpf_mptcp.h"
#include "context.h"

#define OPTION_SLOTS 8 /* plugins of one service: the built-in ones and third parties' */
#define OPTION_ASSIGNED 2 /* header of an option with a kind of its own: kind, length */
#define OPTION_EXPERIMENTAL 4 /* header of kind 253 (RFC 6994): kind, length, ExID */
#define OPTION_MAX 16 /* length of the longest option */
#define OPTION_PARAMETER_BYTES 344

#define SOL_TCP 6
#define TCP_CONGESTION 13
#define TCP_USER_TIMEOUT 18
#define TCP_CA_NAME_MAX 16

/* What can happen to an option; index into the counters of its plugin. From MALFORMED on: refusals. */
enum option_event {
	OPTION_NOTHING, /* nothing to report; its counter is never used */
	OPTION_SENT, /* written to a packet */
	OPTION_RECEIVED, /* found in a packet */
	OPTION_APPLIED, /* the socket was changed */
	OPTION_NO_SPACE, /* a packet went without it: 40 bytes were full */
	OPTION_UNCONFIRMED, /* fell silent before the peer acknowledged it */
	OPTION_MALFORMED, /* wrong length, or a value that cannot be */
	OPTION_UNKNOWN, /* an id that the configuration does not know */
	OPTION_NOT_ALLOWED, /* known, but not allowed by the policy or missing in the kernel */
	OPTION_UNTRUSTED, /* from outside the trusted prefixes */
	OPTION_LATE, /* data was sent already */
	OPTION_APPLICATION, /* the application has set a value itself */
	OPTION_KERNEL, /* the kernel refused the value */
	OPTION_EVENTS = 16,
};

/* Settings of one plugin in one policy, all zero where the policy does not use it. */
struct option_parameters {
	u8 search[4]; /* as bpf_load_hdr_opt wants it: kind, 0 or 4, ExID in network order */
	u8 sends; /* whether this end writes the option */
	u8 listens; /* whether it honours the peer's */
	u8 pad[2];
	/* struct NAME_parameters, or a third party's parameters as u64 values */
	u8 plugin[OPTION_PARAMETER_BYTES];
};

/* Written by the service, read here. */
struct policy_parameters {
	struct option_parameters slots[OPTION_SLOTS];
};

/* What happened on one socket: masks have a bit per slot. */
struct option_record {
	u64 policy;
	u32 sent;
	u32 received;
	u32 applied;
	u32 refused;
	u32 value[OPTION_SLOTS]; /* applied, in the plugin's own unit */
	u8 reason[OPTION_SLOTS]; /* enum option_event of the last refusal */
};

/* State of one socket, for as long as it lives. Read by the service. */
struct option_state {
	u32 sending; /* slots whose option is still to be written */
	u32 listening; /* slots that still honour the peer's */
	u32 timing; /* slots that still need the RTT callback */
	u32 reserved; /* slots with room in the packet that is being built */
	u32 outstanding; /* slots written to a packet with data, ... */
	u32 sequence; /* ... which is acknowledged once snd_una is beyond this */
	u32 own_flags; /* callback flags that nobody had set before this program */
	u16 packets; /* built while sending */
	u8 copies; /* of them, those with an option */
	u8 with_data; /* whether the packet that is being built has data */
	u32 private[OPTION_SLOTS][2]; /* for the plugins */
	struct option_record record;
};

struct option {
	struct bpf_sock_ops *skops;
	struct option_state *state;
	struct policy_parameters *parameters;
	u32 slot;
};

enum prefix_kind {
	PREFIX_TRUSTED, /* value: the largest window a peer may ask for */
	PREFIX_LOCAL, /* value: the window towards this destination */
};

/*
 * The value of the longest of the policy's prefixes that the remote address is in, 0 for none.
 * Defined in options.c, as everything that uses a map.
 */
static __always_inline u32 option_prefix(struct option *o, enum prefix_kind kind);

static __always_inline struct option_parameters *option_settings(struct option *o)
{
	return &o->parameters->slots[o->slot & (OPTION_SLOTS - 1)];
}

static __always_inline void *option_parameters_of(struct option *o)
{
	return option_settings(o)->plugin;
}

/* A third party's parameter, u64: PARAMETER(o, level_threshold) is `threshold` of the plugin `level`. */
#define PARAMETER(o, name) (((u64 *)option_parameters_of(o))[PARAMETER_##name])

static __always_inline u32 *option_private(struct option *o)
{
	return o->state->private[o->slot & (OPTION_SLOTS - 1)];
}

/* Report that the socket has this value now. */
static __always_inline enum option_event option_applied(struct option *o, u32 value)
{
	o->state->record.value[o->slot & (OPTION_SLOTS - 1)] = value;
	return OPTION_APPLIED;
}

/* Honour no further option of the peer. */
static __always_inline void option_stop_listening(struct option *o)
{
	o->state->listening &= ~(1 << o->slot);
}

static __always_inline int option_set(struct option *o, int name, u32 value)
{
	return bpf_setsockopt(o->skops, SOL_TCP, name, &value, sizeof(value));
}

static __always_inline u32 option_get(struct option *o, int name)
{
	u32 value = 0;

	bpf_getsockopt(o->skops, SOL_TCP, name, &value, sizeof(value));
	return value;
}

#endif
