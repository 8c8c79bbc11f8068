// Removal of folders with what is in them.
#include <gtest/gtest.h>

#include <string>

extern "C" {
#include <uv.h>

#include "runner/tree.h"
}

namespace
{

bool exists(const std::string &path)
{
    uv_fs_t request;
    int result = uv_fs_lstat(nullptr, &request, path.c_str(), nullptr);
    uv_fs_req_cleanup(&request);
    return result == 0;
}

void make_folder(const std::string &path)
{
    uv_fs_t request;
    EXPECT_EQ(uv_fs_mkdir(nullptr, &request, path.c_str(), 0700, nullptr), 0) << path;
    uv_fs_req_cleanup(&request);
}

void make_file(const std::string &path)
{
    uv_fs_t request;
    int file =
        uv_fs_open(nullptr, &request, path.c_str(), UV_FS_O_CREAT | UV_FS_O_WRONLY, 0600, nullptr);
    uv_fs_req_cleanup(&request);
    ASSERT_GE(file, 0) << path;
    (void)uv_fs_close(nullptr, &request, file, nullptr);
    uv_fs_req_cleanup(&request);
}

std::string temporary_folder()
{
    char base[4096];
    size_t size = sizeof base;
    uv_fs_t request;
    EXPECT_EQ(uv_os_tmpdir(base, &size), 0);
    std::string pattern = std::string(base) + "/tree-XXXXXX";
    EXPECT_EQ(uv_fs_mkdtemp(nullptr, &request, pattern.c_str(), nullptr), 0);
    std::string path = request.path;
    uv_fs_req_cleanup(&request);
    return path;
}

TEST(Tree, IsRemovedWithAllThatIsInIt)
{
    std::string top = temporary_folder();
    make_file(top + "/a");
    make_folder(top + "/b");
    make_folder(top + "/b/c");
    make_file(top + "/b/c/d");
    make_folder(top + "/empty");
    EXPECT_EQ(tree_remove(top.c_str()), 0);
    EXPECT_FALSE(exists(top));
    EXPECT_EQ(tree_remove(top.c_str()), 0) << "one that is not there";
}

#ifndef _WIN32 // Wine makes no junctions.
TEST(Tree, IsNotLeftThroughALink)
{
    std::string top = temporary_folder(), other = temporary_folder();
    uv_fs_t request;
    make_file(other + "/stays");
    int result =
        uv_fs_symlink(nullptr, &request, other.c_str(), (top + "/link").c_str(), 0, nullptr);
    uv_fs_req_cleanup(&request);
    EXPECT_EQ(result, 0);
    EXPECT_EQ(tree_remove(top.c_str()), 0);
    EXPECT_FALSE(exists(top));
    EXPECT_TRUE(exists(other + "/stays"));
    EXPECT_EQ(tree_remove((other + "/stays").c_str()), 0) << "a file";
    EXPECT_EQ(tree_remove(other.c_str()), 0);
}
#endif

} // namespace
