// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A quote provider for TEST images: what sev-guest and tdx-guest are to configfs-tsm on real hardware, without the hardware.
 *
 * Reports come from a simulated platform outside the guest, over vsock to CID 2 (the host), port 9000. One connection is one
 * report: 64 bytes of report data go out; a length (32 bits, little endian) and the report come back, then a length and the
 * auxiliary blob (AMD's certificate table; may be empty). A report of length 0 says "busy". Nothing outside is trusted with
 * anything but the bytes of those two blobs: lengths and times are bounded here.
 *
 * The release image does not hold this module. What it provides is worth nothing: a verifier refuses it unless somebody names
 * the simulated platform's root.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/tsm.h>
#include <linux/unaligned.h>
#include <linux/vm_sockets.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#define TEST_TSM_PORT 9000
/* Longest time without a byte, and for a connection to be made. A simulated platform takes milliseconds. */
#define TEST_TSM_TIMEOUT (10 * HZ)

/* PID 1 passes no parameters to modules: which one it is, is decided when it is built. */
#ifdef TOUCHSTONE_TEST_TDX
#define TEST_TSM_PROVIDER "tdx_guest"
#define TEST_TSM_IS_SNP false
#else
#define TEST_TSM_PROVIDER "sev_guest"
#define TEST_TSM_IS_SNP true
#endif

static int test_tsm_send(struct socket *sock, const void *data, size_t len)
{
	struct kvec part = { .iov_base = (void *)data, .iov_len = len };
	struct msghdr msg = { .msg_flags = MSG_NOSIGNAL };
	int sent = kernel_sendmsg(sock, &msg, &part, 1, len);

	if (sent < 0)
		return sent;
	return sent == len ? 0 : -EIO;
}

/* Exactly @len bytes, or an error: -EIO where the connection ends before them, -ETIMEDOUT where they do not come. */
static int test_tsm_receive(struct socket *sock, void *data, size_t len)
{
	size_t got = 0;

	while (got < len) {
		struct kvec part = { .iov_base = data + got, .iov_len = len - got };
		struct msghdr msg = {};
		int n = kernel_recvmsg(sock, &msg, &part, 1, len - got, 0);

		if (n == -EAGAIN)
			return -ETIMEDOUT;
		if (n < 0)
			return n;
		if (n == 0)
			return -EIO;
		got += n;
	}
	return 0;
}

/* A length and as many bytes. The caller frees *@blob with kvfree; it is NULL where the length is 0. */
static int test_tsm_receive_blob(struct socket *sock, u8 **blob, size_t *blob_len)
{
	u8 prefix[4];
	u32 len;
	int err = test_tsm_receive(sock, prefix, sizeof(prefix));

	if (err)
		return err;
	len = get_unaligned_le32(prefix);
	*blob = NULL;
	*blob_len = len;
	if (!len)
		return 0;
	if (len > TSM_OUTBLOB_MAX)
		return -EMSGSIZE;

	u8 *buf __free(kvfree) = kvzalloc(len, GFP_KERNEL);
	if (!buf)
		return -ENOMEM;
	err = test_tsm_receive(sock, buf, len);
	if (err)
		return err;
	*blob = no_free_ptr(buf);
	return 0;
}

static int test_tsm_exchange(struct socket *sock, struct tsm_report *report)
{
	struct sockaddr_vm host = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_HOST,
		.svm_port = TEST_TSM_PORT,
	};
	u8 *out = NULL, *aux = NULL;
	size_t out_len, aux_len;
	int err;

	sock->sk->sk_sndtimeo = TEST_TSM_TIMEOUT;
	sock->sk->sk_rcvtimeo = TEST_TSM_TIMEOUT;
	err = kernel_connect(sock, (struct sockaddr *)&host, sizeof(host), 0);
	if (err)
		return err;
	err = test_tsm_send(sock, report->desc.inblob, report->desc.inblob_len);
	if (err)
		return err;
	err = test_tsm_receive_blob(sock, &out, &out_len);
	if (err)
		return err;
	if (!out_len)
		return -EBUSY;
	err = test_tsm_receive_blob(sock, &aux, &aux_len);
	if (err) {
		kvfree(out);
		return err;
	}
	/* The core frees what an earlier report left before it asks for a new one. */
	report->outblob = out;
	report->outblob_len = out_len;
	report->auxblob = aux;
	report->auxblob_len = aux_len;
	return 0;
}

static int test_tsm_report_new(struct tsm_report *report, void *data)
{
	struct socket *sock;
	int err;

	/* As sev-guest and tdx-guest do. */
	if (report->desc.inblob_len != TSM_INBLOB_MAX)
		return -EINVAL;
	err = sock_create_kern(&init_net, AF_VSOCK, SOCK_STREAM, 0, &sock);
	if (!err) {
		err = test_tsm_exchange(sock, report);
		sock_release(sock);
	}
	if (err)
		pr_warn("no report: error %d\n", err);
	return err;
}

/* What sev-guest shows without an SVSM, and tdx-guest. */
static bool test_tsm_attr_visible(int n)
{
	switch (n) {
	case TSM_REPORT_GENERATION:
	case TSM_REPORT_PROVIDER:
		return true;
	case TSM_REPORT_PRIVLEVEL:
	case TSM_REPORT_PRIVLEVEL_FLOOR:
		return TEST_TSM_IS_SNP;
	default:
		return false;
	}
}

static bool test_tsm_bin_attr_visible(int n)
{
	switch (n) {
	case TSM_REPORT_INBLOB:
	case TSM_REPORT_OUTBLOB:
		return true;
	case TSM_REPORT_AUXBLOB:
		return TEST_TSM_IS_SNP;
	default:
		return false;
	}
}

static const struct tsm_ops test_tsm_ops = {
	.name = TEST_TSM_PROVIDER,
	.report_new = test_tsm_report_new,
	.report_attr_visible = test_tsm_attr_visible,
	.report_bin_attr_visible = test_tsm_bin_attr_visible,
};

static int __init test_tsm_init(void)
{
	int err = tsm_register(&test_tsm_ops, NULL);

	if (!err)
		pr_warn("SIMULATED " TEST_TSM_PROVIDER ": quotes come from outside and prove nothing\n");
	return err;
}
module_init(test_tsm_init);

static void __exit test_tsm_exit(void)
{
	tsm_unregister(&test_tsm_ops);
}
module_exit(test_tsm_exit);

MODULE_DESCRIPTION("Simulated quote provider of Touchstone's test images");
MODULE_LICENSE("Dual MIT/GPL");
