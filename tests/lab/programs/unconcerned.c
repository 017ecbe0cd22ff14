/* SPDX-License-Identifier: GPL-2.0-only */
/* Replies and returns in every callback what the test says, as programs do that know none of them. */
BPF_ARRAY(answers, s32, 2); /* the reply, the return value; written by the test */

int unconcerned(struct bpf_sock_ops *skops)
{
	int key = 0;
	s32 *answer = answers.lookup(&key);

	if (answer)
		skops->reply = *answer;
	key = 1;
	answer = answers.lookup(&key);
	return answer && *answer ? 1 : 0;
}
