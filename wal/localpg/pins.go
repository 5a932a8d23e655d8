package localpg

// pin is one build that fetch can get.
type pin struct {
	version string            // as the repository names it
	sha256  map[string]string // of the jar, by the repository's platform name
}

// platforms maps GOOS/GOARCH to the repository's name.
var platforms = map[string]string{
	"linux/amd64": "linux-amd64",
	"linux/arm64": "linux-arm64v8",
}

// pins has one build for each major version.
var pins = map[int]pin{
	14: {"14.24.0", map[string]string{
		"linux-amd64": "2722d05eb22c671104c9918d59d8ba9f5656898f5452a0207bb4cce21eef5dc4",
	}},
	15: {"15.19.0", map[string]string{
		"linux-amd64":   "95f0b66fe72d4ca66c815773c44cb1196ea38552463e89a35f18114b3ed1565f",
		"linux-arm64v8": "95baf4bd4af31b91b3050118df59388ed0064756b556b850669e0300aa7b9911",
	}},
	16: {"16.15.0", map[string]string{
		"linux-amd64":   "653abc065c682b85d3da50168fb95dc524bd85426cdec9ce3695a550ef431df2",
		"linux-arm64v8": "f846a9989d686b7977d6eca9bc9d8b2b69e3f70c7eb60e032197d9c574a6136c",
	}},
	17: {"17.11.0", map[string]string{
		"linux-amd64":   "0dd7b72b6f335b8ecfb355fa24c5781e8a93edd09880bb77eb52ebbf29b3e96d",
		"linux-arm64v8": "8b042e0ea418b1927d95399207950da0734d27fe01e29503ade3bdc464ad4c2b",
	}},
	18: {"18.6.0", map[string]string{
		"linux-amd64":   "008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1",
		"linux-arm64v8": "5f54e016723afa6213925a8acb939bac52944b1d348f65c7a20f0cd2928c31be",
	}},
}

func newestPin() int {
	newest := 0
	for major := range pins {
		newest = max(newest, major)
	}
	return newest
}

func pinURL(repository, platform, version string) string {
	artifact := "embedded-postgres-binaries-" + platform
	return repository + "/io/zonky/test/postgres/" + artifact + "/" + version + "/" + artifact + "-" + version + ".jar"
}
